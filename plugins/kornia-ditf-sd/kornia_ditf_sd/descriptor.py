"""DIFT (arXiv 2306.03881): features of a Stable Diffusion UNet at one up block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.declared import Posterior
from kornia_ditf.dense import DenseDescriptor, one_prompt_each
from kornia_ditf.ensemble import mean_taps
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.latents import encode_images, execution_place, pixels_per_cell
from kornia_ditf.noise import NoiseSchedule, draw_image_noise, exact_pixels
from kornia_ditf.preprocess import ImageLike, as_image, check_size, fit_image, squash_image
from kornia_ditf.types import Conditioning, DescriptorMap, Frame, Tap
from kornia_ditf.utils.checks import check_integer, check_one_of, check_timestep
from kornia_ditf.utils.hooks import capture_output


@dataclass(frozen=True, slots=True, kw_only=True)
class DIFTConfig:
    """What a DIFT descriptor computes; the defaults are DIFT's for semantic correspondence.

    Args:
        up_ft_index: whose output is taken, counted from 0: the UNet's up block.
        timestep: an integer that the model was trained at; 0 is clean.
        ensemble: number of noise draws whose features are averaged.
        clean: give the UNet the latent without noise, as weights of CleanDIFT want it; the
            timestep is then what its time embedding is told alone.
        prompt: what the model is told when the caller gives no prompt.
        seed: of the noise draws.
        size: height and width to squash images to, multiples of 8; None keeps their aspect.
        long_side: with no `size`, the longest side of the fitted image in pixels; None keeps it.
            Both sides are then rounded so that every downsampling halves them: to multiples of 64,
            of 32 for SDXL.
        posterior: take the `mode` of the VAE's posterior, or a seeded `sample`. DIFT samples, anew
            for each noise draw; here one draw serves all.
        rows_per_forward: how many noisy images pass the UNet together; None tries all and halves
            while memory does not suffice. The result is the same.

    Raises:
        InvalidArgumentError: a value is out of range.

    Example:
        >>> DIFTConfig(ensemble=0)
        Traceback (most recent call last):
        kornia_ditf.errors.InvalidArgumentError: ensemble must be 1 or more, got 0
    """

    up_ft_index: int = 1
    timestep: int = 261
    ensemble: int = 8
    clean: bool = False
    prompt: str = ""
    seed: int = 0
    size: tuple[int, int] | None = None
    long_side: int | None = None
    posterior: Posterior = "mode"
    rows_per_forward: int | None = None

    def __post_init__(self) -> None:
        check_timestep(self.timestep)
        check_integer("up_ft_index", self.up_ft_index, minimum=0)
        check_integer("ensemble", self.ensemble, minimum=1)
        check_integer("seed", self.seed, minimum=-(2**63), maximum=2**63 - 1)
        for name in ("long_side", "rows_per_forward"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum=1)
        if self.clean and self.ensemble != 1:
            raise InvalidArgumentError(
                f"clean=True draws no noise to average: ensemble must be 1, got {self.ensemble}"
            )
        if not isinstance(self.prompt, str):
            raise InvalidArgumentError(f"prompt must be a string, got {self.prompt!r}")
        check_one_of("posterior", self.posterior, get_args(Posterior))


class DIFT(DenseDescriptor):
    """Dense descriptors from the UNet of Stable Diffusion 1, 2 or XL.

    Args:
        unet: a diffusers UNet2DConditionModel, whole or up to the block.
        vae: its AutoencoderKL, or the encoder alone.
        prompt_encoder: from prompts to `prompt_embeds` and, for SDXL, `pooled_prompt_embeds`.
        schedule: how the model mixes latents with noise.
        config: what to compute.
        identity: which weights these are; None keeps descriptors out of caches.

    Raises:
        InvalidArgumentError: the UNet has no such block or timestep, takes other latents than the
            VAE gives, or the size does not fit it.
    """

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        *,
        prompt_encoder: Callable[[Sequence[str]], Conditioning],
        schedule: NoiseSchedule,
        config: DIFTConfig,
        identity: str | None = None,
    ) -> None:
        super().__init__()
        taken: Any = unet.config
        given: Any = vae.config
        check_integer("up_ft_index", config.up_ft_index, 0, len(taken.up_block_types) - 1)
        schedule.check(config.timestep)
        if taken.in_channels != given.latent_channels:
            raise InvalidArgumentError(
                f"the UNet takes {taken.in_channels} channels and the VAE gives "
                f"{given.latent_channels}: models for inpainting or depth are not supported"
            )
        if config.size is not None:
            check_size(config.size, pixels_per_cell(vae))
        self.unet, self.vae, self.prompt_encoder = unet, vae, prompt_encoder
        self.schedule = _Noiseless() if config.clean else schedule
        self.config, self._weights = config, identity

    @property
    def width(self) -> int:
        config: Any = self.unet.config
        return int(config.block_out_channels[::-1][self.config.up_ft_index])

    @property
    def identity(self) -> str | None:
        """Identifier of weights, configuration and dtype; None if the weights have none."""
        if self._weights is None:
            return None
        config = replace(self.config, rows_per_forward=None)
        return f"{self._weights} {config} {execution_place(self.unet)[1]} noise=per-image"

    @torch.no_grad()
    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        """Describe an image, or a batch of equally large ones, at the configured up block.

        Arguments, result and errors as in `DenseDescriptor.forward`; descriptors are float32.
        """
        pixels = as_image(image)
        fitted, frame = self._fit(pixels)
        conditioning = self._condition(prompts, len(fitted))
        sample = self.config.posterior == "sample"
        latent = encode_images(self.vae, fitted, sample=sample, seed=self.config.seed)
        exact = exact_pixels(pixels)
        noise = draw_image_noise(
            fitted if exact is pixels else self._fit(exact)[0],
            (self.config.ensemble, *latent.shape[1:]),
            seed=self.config.seed,
        )
        if "pooled_prompt_embeds" in conditioning.tensors:
            conditioning = _with_time_ids(conditioning, frame.model_size)
        blocks, rows = [self.config.up_ft_index], self.config.rows_per_forward
        unet: Any = self  # gives taps as a backbone does
        taps = mean_taps(
            unet, latent, noise, self.config.timestep, conditioning, blocks=blocks, rows=rows
        )
        [tap] = taps.values()
        return DescriptorMap(tap.x.transpose(1, 2).reshape(len(latent), -1, *tap.grid), frame)

    def taps(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, *, blocks: Sequence[int]
    ) -> dict[int, Tap]:
        """Capture what an up block gives; arguments as for `Backbone.taps`, with one block."""
        [block] = blocks
        device, dtype = execution_place(self.unet)
        tensors = conditioning.to(device, dtype).tensors
        inputs = {
            "sample": latent.to(device, dtype),
            "timestep": int(timestep),
            "encoder_hidden_states": tensors["prompt_embeds"],
        }
        if "time_ids" in tensors:
            inputs["added_cond_kwargs"] = {
                "text_embeds": tensors["pooled_prompt_embeds"],
                "time_ids": tensors["time_ids"],
            }
        up_blocks: Any = self.unet.up_blocks
        found = capture_output(self.unet, up_blocks[block], inputs, name=f"up block {block}")
        rows, columns = found.shape[2:]
        return {block: Tap(found.flatten(2).transpose(1, 2), None, None, (rows, columns))}

    def _fit(self, image: Tensor) -> tuple[Tensor, Frame]:
        cell = pixels_per_cell(self.vae)
        if self.config.size is not None:
            return squash_image(image, self.config.size, cell)
        unet: Any = self.unet.config
        halvings = len(unet.down_block_types) - 1
        return fit_image(image, self.config.long_side, cell * 2**halvings)

    def _condition(self, prompts: str | Sequence[str] | None, images: int) -> Conditioning:
        given = self.config.prompt if prompts is None else prompts
        if isinstance(given, str):
            return self.prompt_encoder([given]).expand(images)
        texts = one_prompt_each(given, images)
        if not all(isinstance(prompt, str) for prompt in texts):
            raise InvalidArgumentError(f"prompts must be strings, got {prompts!r}")
        return self.prompt_encoder([str(prompt) for prompt in texts])


class _Noiseless(NoiseSchedule):
    """Latents stay clean, whatever timestep the model receives."""

    def check(self, timestep: float) -> None:
        pass

    def weights(self, timestep: float) -> tuple[float, float]:
        return 1.0, 0.0


def _with_time_ids(conditioning: Conditioning, size: tuple[int, int]) -> Conditioning:
    """Add SDXL's time ids of an image that was neither scaled nor cropped."""
    tensors = conditioning.tensors
    ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32)
    return Conditioning({**tensors, "time_ids": ids.expand(len(tensors["prompt_embeds"]), -1)})
