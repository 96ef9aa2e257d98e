"""A Diffusion Transformer of anybody's own code as a backbone, by a declaration of its blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kornia_ditf.backbones.declared import DeclaredBackbone, Posterior
from kornia_ditf.errors import CaptureError, InvalidArgumentError
from kornia_ditf.noise import NoiseSchedule
from kornia_ditf.tap import BlockStream, block_list, find_module
from kornia_ditf.types import Conditioning
from kornia_ditf.utils.checks import check_integer

Inputs = Callable[[Tensor, float, Conditioning], Mapping[str, Any]]


class ModuleBackbone(DeclaredBackbone):
    """A transformer whose blocks are plain modules, such as SiT, REPA, LightningDiT or JiT.

    Its own forward runs under hooks and nothing of it is rewritten; what is declared is checked
    against what a block's attention receives.

    Args:
        transformer: the model, with its weights.
        streams: where its blocks keep norm, modulation and attention.
        inputs: from a noisy latent (B, C, h, w), the paper's timestep in [0, 1000] and the
            conditioning to the arguments of the transformer's forward, by their names.
        patch_size: side of the square of latent cells that one token covers.
        latent_channels: channels of the latent; 3 for a model of pixels.
        width: channels of the stream; None reads it from the first block's norm.
        vae: a diffusers VAE; None for a model of pixels, or with `encode`.
        encode: from images (B, 3, H, W) in [0, 1] to latents, in place of a VAE; None, without a
            VAE, gives the pixels in [-1, 1].
        pixels_per_cell: side of the square of pixels that one cell covers, with `encode`.
        condition: from prompts to conditioning, one row each; None takes the empty prompt alone.
        schedule: the noise schedule; None is the straight path of rectified flow.
        identity: which weights these are, for caches; None keeps nothing.
        posterior: take the `mode` of the VAE's posterior, or a seeded `sample`.
        seed: of the posterior sample.

    Raises:
        InvalidArgumentError: there is no stream, or a size is not a positive number.
        CaptureError: the model has no such blocks or modules.

    Example:
        >>> import torch
        >>> from kornia_ditf.tap import LinearModulation
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.norm1 = nn.LayerNorm(8, elementwise_affine=False)
        ...         self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(8, 16))
        ...         self.attn = nn.Linear(8, 8)
        ...     def forward(self, x, c):
        ...         shift, scale = self.adaLN_modulation(c).chunk(2, 1)
        ...         return x + self.attn(self.norm1(x) * (1 + scale[:, None]) + shift[:, None])
        >>> class Model(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embed = nn.Conv2d(3, 8, 4, 4)
        ...         self.blocks = nn.ModuleList([Block(), Block()])
        ...     def forward(self, x, t):
        ...         tokens = self.embed(x).flatten(2).transpose(1, 2)
        ...         for block in self.blocks:
        ...             tokens = block(tokens, t[:, None].expand(-1, 8))
        >>> stream = BlockStream(blocks="blocks", norm="norm1", attention="attn",
        ...                      modulation=LinearModulation("adaLN_modulation"))
        >>> backbone = ModuleBackbone(
        ...     Model(), [stream], lambda x, time, _: {"x": x, "t": x.new_full((len(x),), time)},
        ...     patch_size=4, latent_channels=3)
        >>> backbone.tap(torch.zeros(1, 3, 8, 12), 250, backbone.condition([""]), block=1).grid
        (2, 3)
    """

    width = patch_size = latent_channels = 0  # of each model by itself

    def __init__(
        self,
        transformer: nn.Module,
        streams: Sequence[BlockStream],
        inputs: Inputs,
        *,
        patch_size: int,
        latent_channels: int,
        width: int | None = None,
        vae: nn.Module | None = None,
        encode: Callable[[Tensor], Tensor] | None = None,
        pixels_per_cell: int = 1,
        condition: Callable[[Sequence[str]], Conditioning] | None = None,
        schedule: NoiseSchedule | None = None,
        identity: str | None = None,
        posterior: Posterior = "mode",
        seed: int = 0,
    ) -> None:
        super().__init__(
            transformer,
            vae,
            prompt_encoder=condition,
            schedule=schedule,
            posterior=posterior,
            seed=seed,
        )
        check_integer("patch_size", patch_size, minimum=1)
        check_integer("latent_channels", latent_channels, minimum=1)
        check_integer("pixels_per_cell", pixels_per_cell, minimum=1)
        if not streams:
            raise InvalidArgumentError("declare at least one BlockStream")
        self.streams = tuple(streams)  # type: ignore[misc]
        self.patch_size, self.latent_channels = patch_size, latent_channels
        self.width = _read_width(transformer, self.streams[0]) if width is None else width
        self.identity = identity
        self._inputs, self._encode, self._pixels_per_cell = inputs, encode, pixels_per_cell

    @property
    def config(self) -> Any:
        return getattr(self.transformer, "config", None)

    @property
    def pixels_per_cell(self) -> int:
        return self._pixels_per_cell if self.vae is None else super().pixels_per_cell

    def encode(self, image: Tensor) -> Tensor:
        if self.vae is not None:
            return super().encode(image)
        return 2 * image - 1 if self._encode is None else self._encode(image)

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        if self.prompt_encoder is not None:
            return self.prompt_encoder(prompts)
        if any(prompts):
            raise InvalidArgumentError(
                f"this backbone takes no prompts, got {list(prompts)}; declare condition=..."
            )
        return Conditioning({})

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        return self._inputs(latent, timestep, conditioning)


def _read_width(transformer: nn.Module, stream: BlockStream) -> int:
    norm: Any = find_module(block_list(transformer, stream)[0], stream.norm)
    sides = getattr(norm, "normalized_shape", None)
    sides = getattr(norm, "weight", None) if sides is None else sides
    if sides is None:
        raise CaptureError(f"the width cannot be read from a {type(norm).__name__}; give width=...")
    return int(sides[-1] if isinstance(sides, tuple | list) else len(sides))
