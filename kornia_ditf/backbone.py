"""An image in, the inputs of transformer blocks out: what every backbone offers, and its spec.

`Backbone` is the interface; `DiffusersBackbone` meets it for any diffusers transformer whose
family declares where its blocks keep what is needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.noise import NoiseSchedule, RectifiedFlow, draw_noise
from kornia_ditf.tap import BlockStream, capture_blocks, count_blocks
from kornia_ditf.types import Conditioning, Tap

Posterior = Literal["mode", "sample"]
PromptEncoder = Callable[[Sequence[str]], Conditioning]


class Backbone(nn.Module, ABC):
    """A Diffusion Transformer with its image encoder, as a source of block inputs."""

    schedule: NoiseSchedule
    """How the family mixes latents with noise."""

    identity: str = "unnamed"
    """Which weights these are; caches of what was measured on them carry it."""

    @property
    @abstractmethod
    def blocks(self) -> int:
        """How many blocks the architecture has, all lists together."""

    @property
    @abstractmethod
    def pixels_per_token(self) -> int:
        """Side of the square of pixels that one token covers."""

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] into latents (B, C, h, w)."""

    @abstractmethod
    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts, one row each; an empty prompt is a valid one."""

    @abstractmethod
    def taps(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, *, blocks: Sequence[int]
    ) -> dict[int, Tap]:
        """Capture the inputs of several blocks in one forward pass that stops at the last.

        Args:
            latent: noisy latents, shape (B, C, h, w).
            timestep: the paper's timestep in [0, 1000].
            conditioning: one row, or one per image.
            blocks: which blocks, counted from 0.

        Returns:
            one tap per block.
        """

    def tap(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, *, block: int
    ) -> Tap:
        """Capture the input of one block; the forward stops there."""
        return self.taps(latent, timestep, conditioning, blocks=[block])[block]


class DiffusersBackbone(Backbone):
    """A diffusers transformer and VAE; a family's subclass declares and rewrites no forward.

    Args:
        transformer: a diffusers transformer, whole or with its later blocks left out.
        vae: a diffusers AutoencoderKL, whole or its encoder alone.
        prompt_encoder: from prompts to conditioning; None where only `Conditioning` is given.
        schedule: the noise schedule; None takes the family's own.
        posterior: take the `mode` of the VAE's posterior, or a seeded `sample`.
        seed: of the posterior sample.

    Raises:
        InvalidArgumentError: the posterior has another name.
    """

    transformer_class: ClassVar[str]
    """Name of the transformer's class in diffusers."""
    pipeline_class: ClassVar[str | None] = None
    """Name of the diffusers pipeline that encodes prompts; None where there are none."""
    streams: ClassVar[tuple[BlockStream, ...]]
    """Where the blocks keep norm, modulation and attention, list by list as they run."""
    head: ClassVar[tuple[str, ...]] = ()
    """Modules after the last block, never reached and so never loaded."""
    schedule: NoiseSchedule = RectifiedFlow()

    def __init__(
        self,
        transformer: nn.Module,
        vae: nn.Module | None = None,
        *,
        prompt_encoder: PromptEncoder | None = None,
        schedule: NoiseSchedule | None = None,
        posterior: Posterior = "mode",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if posterior not in get_args(Posterior):
            raise InvalidArgumentError(f"posterior must be 'mode' or 'sample', got {posterior!r}")
        self.transformer, self.vae = transformer, vae
        self.prompt_encoder, self.posterior, self.seed = prompt_encoder, posterior, seed
        if schedule is not None:
            self.schedule = schedule

    @property
    def config(self) -> Any:
        """The transformer's own configuration."""
        return self.transformer.config

    @property
    def blocks(self) -> int:
        return count_blocks(self.transformer, self.streams)

    @property
    def patch_size(self) -> int:
        """Side of the square of latent cells that one token covers."""
        return int(self.config.patch_size)

    @property
    def pixels_per_token(self) -> int:
        return self.patch_size * self.pixels_per_cell

    @property
    def pixels_per_cell(self) -> int:
        """Side of the square of pixels that one cell of the latent covers."""
        if self.vae is None:
            return 1
        config: Any = self.vae.config
        return 1 << (len(config.block_out_channels) - 1)

    def encode(self, image: Tensor) -> Tensor:
        if self.vae is None:
            raise InvalidArgumentError("this backbone has no VAE; build it with vae=...")
        vae: Any = self.vae
        device, dtype = execution_place(vae)
        posterior = vae.encode((2 * image - 1).to(device, dtype)).latent_dist
        latent: Tensor = posterior.mode()
        if self.posterior == "sample":
            # One draw for all images: an image's latent must not depend on its place in a batch.
            draw = draw_noise((1, *latent.shape[1:]), seed=self.seed)
            latent = posterior.mean + posterior.std * draw.to(latent)
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return (latent.float() - shift) * float(vae.config.scaling_factor)

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        if self.prompt_encoder is None:
            raise InvalidArgumentError(
                f"this {type(self).__name__} was built without a prompt encoder; "
                "build it with prompt_encoder=..., or give it a Conditioning"
            )
        return self.prompt_encoder(prompts)

    def taps(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, *, blocks: Sequence[int]
    ) -> dict[int, Tap]:
        self.schedule.check(timestep)
        patch, channels = self.patch_size, self.latent_channels
        if latent.ndim != 4 or latent.shape[1] != channels or not latent.numel():
            raise InvalidArgumentError(
                f"latent must have the shape (B, {channels}, h, w), got {tuple(latent.shape)}"
            )
        height, width = latent.shape[2:]
        if height % patch or width % patch:
            raise InvalidArgumentError(
                f"latent sides must be multiples of {patch}, got {height} x {width}"
            )
        device, dtype = execution_place(self.transformer)
        conditioning = conditioning.expand(len(latent)).to(device, dtype)
        latent = latent.to(device, dtype)
        grid = (height // patch, width // patch)
        inputs = self.transformer_inputs(latent, timestep, conditioning)
        return capture_blocks(self.transformer, self.streams, blocks, inputs, grid=grid)

    @property
    def latent_channels(self) -> int:
        """Channels of the latent that the transformer takes."""
        return int(self.config.in_channels)

    @abstractmethod
    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        """Give the arguments of the transformer's forward, as the family's pipeline does.

        Args:
            latent: noisy latents (B, C, h, w) in the transformer's dtype, on its device.
            timestep: the paper's timestep in [0, 1000].
            conditioning: B rows, on the transformer's device.
        """

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encode prompts with the family's pipeline, one row each.

        Raises:
            InvalidArgumentError: the family takes no prompts.
        """
        raise InvalidArgumentError(f"{cls.__name__} takes no prompts")


def execution_place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Find where a module computes and in which dtype, offloaded or quantised modules included."""
    dtype = getattr(module, "dtype", None) or next(module.parameters()).dtype
    hook = getattr(module, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is None:
        device = next(module.parameters()).device
    return torch.device(device), dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """All that is known of a backbone before a weight is loaded.

    Args:
        name: what the user types.
        repo: hub id of a repository in the diffusers layout, or a folder's path.
        transformer_class: name of the transformer's class in diffusers.
        load: makes the backbone; called with `source`, `block`, `dtype`, `device` and more.
        blocks: number of blocks, all lists together.
        width: channels of the stream.
        pixels_per_token: side of the square of pixels that one token covers.
        block: which block's input to take, counted from 0.
        timestep: the paper's timestep in [0, 1000].
        long_side: length of the image's longest side in pixels.
        ensemble: number of noise draws.
        massive_channels: those to discard; None where they are found when first needed.
        prompt: what the model is told when the user gives no prompt.
        calibrated: whether block, timestep and massive channels were chosen by measuring.
        source: where these numbers come from.
        license: licence of the weights.
        architecture: the transformer's configuration, for planning without network.
    """

    name: str
    repo: str
    transformer_class: str
    load: Callable[..., Backbone]
    blocks: int
    width: int
    pixels_per_token: int
    block: int
    timestep: int
    long_side: int
    ensemble: int = 1
    massive_channels: tuple[int, ...] | None = None
    prompt: str = ""
    calibrated: bool = False
    source: str
    license: str
    architecture: Mapping[str, Any] = field(default_factory=dict, repr=False)
