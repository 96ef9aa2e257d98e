"""The DiTF descriptor and its configuration: the one file that knows the whole chain.

Source: DiTF, arXiv 2505.18584; docs/method.md walks through it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.config import DiTFConfig
from kornia_ditf.dense import one_prompt_each
from kornia_ditf.discarding import DiscardingDescriptor
from kornia_ditf.ensemble import mean_taps
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.learned import learned_tensors
from kornia_ditf.massive import find_massive_channels, mark_massive_channels
from kornia_ditf.noise import draw_image_noise, exact_pixels
from kornia_ditf.preprocess import ImageLike, as_image, fit_image
from kornia_ditf.tap import checking_every_capture
from kornia_ditf.treatments import describe_tap, learn_from_blank
from kornia_ditf.treatments.steps import discard
from kornia_ditf.types import Conditioning, DescriptorMap, Discarded, Frame, Tap
from kornia_ditf.types.joining import join_maps, mean_maps
from kornia_ditf.types.prepared import PreparedImage
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.utils.isolation import eager
from kornia_ditf.utils.values import deferred_checks, settle_checks

_SHOWN = ("long_side", "treatment", "massive_channels")
"""Settings that a `DiTF` is represented by even where they are the defaults."""

_TOKENS = {"cpu": 1200, "cuda": 1 << 15}
"""Tokens in a forward pass from which on larger batches gain nothing."""


class DiTF(DiscardingDescriptor):
    """Dense descriptors from a Diffusion Transformer.

    Args:
        backbone: the transformer and its image encoder.
        config: the configuration.

    Raises:
        InvalidArgumentError: the backbone has no such block or timestep.
    """

    preset = ""
    """Where the configuration's numbers come from; `create_ditf` writes it."""

    def __init__(self, backbone: Backbone, config: DiTFConfig) -> None:
        super().__init__(backbone, config)
        for block in config.all_blocks:
            check_integer("block", block, 0, backbone.blocks - 1)
        for timestep in config.all_timesteps:
            backbone.schedule.check(timestep)

    def extra_repr(self) -> str:
        changed = {
            field.name: getattr(self.config, field.name)
            for field in fields(self.config)
            if field.name in _SHOWN or getattr(self.config, field.name) != field.default
        }
        settings = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        preset = f", preset={self.preset!r}" if self.preset else ""
        return f"{type(self.backbone).__name__}, width={self.width}, {settings}{preset}"

    @property
    def width(self) -> int:
        if self.config.facet == "input":
            return self.backbone.width * len(self.config.all_blocks)
        return sum(self.backbone.facet_width(b, self.config.facet) for b in self.config.all_blocks)

    @property
    def token_norm(self) -> float | None:
        return None if self.config.blocks is None else math.sqrt(len(self.config.blocks))

    def at(self, block: int, timestep: float) -> DiTF:
        """Return the descriptor at one of several blocks and timesteps.

        Massive channels that it finds are known to this one, and those of this one to it.
        """
        cell = self._like(self.config.at(block, timestep))
        cell.channels_from, cell._found = self.channels_from, self._found
        return cell

    def _like(self, config: DiTFConfig) -> DiTF:
        return DiTF(self.backbone, config)

    def cells(self) -> Sequence[DiTF]:
        """Return the descriptors at every block and timestep, of which this one is made."""
        if self.config.single:
            return [self]
        return [self.at(b, t) for b in self.config.all_blocks for t in self.config.all_timesteps]

    @property
    def identity(self) -> str | None:
        """Identifier of weights, configuration and dtype; None if the weights have none.

        While massive channels are not known they are found in each image, and there is no name
        yet: `calibrate` first, or configure them.
        """
        if not self.config.single:
            names = [cell.identity for cell in self.cells()]
            several = f"{self.config.all_blocks} x {self.config.all_timesteps}"
            return None if None in names else f"blocks x timesteps {several} of {names}"
        channels = self.massive_channels() if self._discards else ()
        if self.backbone.identity is None or channels is None:
            return None
        config = replace(
            self.config, massive_channels=channels, rows_per_forward=None, checks="first"
        )
        return f"{self.backbone.identity} {config} {self.backbone.settings()} noise=per-image"

    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        """Describe an image, or a batch of equally large ones, at the configured block.

        Args:
            image: as `DenseDescriptor.forward` takes it.
            prompts: none, one for all images, or one per image.

        Returns:
            descriptors (B, D, rows, columns), float32, that know the image's pixels.

        Raises:
            InvalidArgumentError: an image or the prompts do not fit.
            ImageError: a file cannot be read, or an image is too small or too thin.
            CaptureError: the transformer did not behave as its family declares.
        """
        return self._join(self.describe_blocks(image, self.config.all_blocks, prompts))

    @eager
    def describe_blocks(
        self, image: ImageLike, blocks: Sequence[int], prompts: str | Sequence[str] | None = None
    ) -> dict[int, DescriptorMap]:
        """Describe images at several blocks in one forward pass; arguments as in `forward`.

        With several timesteps there is a forward for each, and their descriptors are averaged.
        """
        with deferred_checks() as checks:
            maps = self._maps([self.prepare(image)], blocks, prompts)
        return {block: replace(each, checks=checks) for block, each in maps.items()}

    @eager
    def describe_together(
        self, images: Sequence[ImageLike], prompts: str | Sequence[str] | None = None
    ) -> list[DescriptorMap]:
        """Describe images of any sizes, finding massive channels that are not known in all of them.

        Arguments as in `DenseDescriptor.describe_together`. With several blocks or timesteps, those
        channels are found in each image.
        """
        given = one_prompt_each(prompts, len(images))
        prepared = [self.prepare(image) for image in images]
        parts = [(prepared[part], given[part]) for part in self._forwards(len(images))]
        if not (self.config.single and self._discards and self.massive_channels() is None):
            return [one for part in parts for one in self.describe_prepared(*part)]
        block = self.config.block
        taps = [self.prepared_taps(some, [block], texts)[block] for some, texts in parts]
        found = find_massive_channels([tap.x for tap in taps])
        self._found[self._cell(block)] = Discarded(found, "images described together")
        maps = [self.finish(block, t, p[0].frame) for t, (p, _) in zip(taps, parts, strict=True)]
        return [
            replace(one, checks=image.checks)
            for one, image in zip(chain.from_iterable(maps), prepared, strict=True)
        ]

    def _forwards(self, images: int) -> list[slice]:
        """Return which of several images pass the transformer together; they may differ in size."""
        return [slice(number, number + 1) for number in range(images)]

    @eager
    def taps(
        self,
        image: ImageLike,
        blocks: Sequence[int],
        prompts: str | Sequence[str] | None = None,
    ) -> tuple[dict[int, Tap], Frame]:
        """Return what the descriptors are made of: blocks' inputs, averaged over the noise draws.

        Arguments as in `describe_blocks`; nothing is discarded or normalised yet.
        """
        prepared = self.prepare(image)
        return self.prepared_taps([prepared], blocks, prompts), prepared.frame

    def prepare(self, image: ImageLike) -> PreparedImage:
        with self._gradients(), deferred_checks() as checks:
            pixels = as_image(image)
            side, multiple = self.config.long_side, self.backbone.pixels_per_token
            fitted, frame = fit_image(pixels, side, multiple)
            exact = exact_pixels(pixels) if self.has_noise else pixels
            exact = fitted if exact is pixels else fit_image(exact, side, multiple)[0]
            if self.place.type == "cuda" and fitted.device.type == "cpu":
                fitted = fitted.pin_memory().to(self.place, non_blocking=True)  # nobody waits
            return PreparedImage(fitted, frame, exact, checks)

    @eager
    def prepared_taps(
        self,
        images: Sequence[PreparedImage],
        blocks: Sequence[int],
        prompts: str | Sequence[str | None] | None = None,
    ) -> dict[int, Tap]:
        """Return the taps of prepared images of one size together; otherwise as `taps`."""
        with self._gradients(), checking_every_capture(self.config.checks == "always"):
            latent = self.backbone.encode(self._arrange([image.pixels for image in images]))
            noise = self._noise(images, latent)
            conditioning = self._condition(prompts, len(latent))
            return self._taps(latent, noise, conditioning, blocks)

    def _arrange(self, pixels: Sequence[Tensor]) -> Tensor:
        """Arrange prepared images of one size as the backbone encodes them."""
        return torch.cat(list(pixels))

    def describe_prepared(
        self, images: Sequence[PreparedImage], prompts: Sequence[str | None]
    ) -> list[DescriptorMap]:
        blocks = self.config.all_blocks
        return [self._join(m) for m in self.describe_prepared_blocks(images, blocks, prompts)]

    @eager
    def describe_prepared_blocks(
        self,
        images: Sequence[PreparedImage],
        blocks: Sequence[int],
        prompts: Sequence[str | None] | None = None,
    ) -> list[dict[int, DescriptorMap]]:
        """Describe prepared images of one size together at several blocks, a dictionary each."""
        with deferred_checks() as checks:
            maps = self._maps(images, blocks, prompts)
        checks += [check for image in images for check in image.checks]
        return [
            {b: replace(m[row], frame=image.frame, checks=checks) for b, m in maps.items()}
            for row, image in enumerate(images)
        ]

    def _maps(
        self,
        images: Sequence[PreparedImage],
        blocks: Sequence[int],
        prompts: str | Sequence[str | None] | None,
    ) -> dict[int, DescriptorMap]:
        found: dict[int, list[DescriptorMap]] = {block: [] for block in blocks}
        for timestep in self.config.all_timesteps:
            single = self.config.single
            cells = {block: self if single else self.at(block, timestep) for block in blocks}
            taps = cells[blocks[0]].prepared_taps(images, blocks, prompts)
            for block, tap in taps.items():
                found[block].append(cells[block].finish(block, tap, images[0].frame))
        return {block: mean_maps(maps) for block, maps in found.items()}

    def _join(self, maps: Mapping[int, DescriptorMap]) -> DescriptorMap:
        if self.config.blocks is None:
            return maps[self.config.block]
        joined = join_maps([maps[block] for block in self.config.blocks])
        return replace(joined, checks=maps[self.config.blocks[0]].checks)

    def batch_of(self, image: PreparedImage, batch: int | None = None) -> int:
        tokens = image.pixels[0, 0].numel() // self.backbone.pixels_per_token**2
        most = _TOKENS.get(self.place.type, _TOKENS["cuda"])
        return batch or max(1, most // (tokens * self.config.ensemble))

    def images_ahead(self, batch: int | None = None) -> int:
        return 2 * (batch or 4)

    def noise(self, image: ImageLike) -> Tensor:
        """Return the noise that images are mixed with, each image's own (see `draw_image_noise`).

        Args:
            image: as `forward` takes it.

        Returns:
            draws (B, ensemble, C, h, w), float32, on the CPU; zeros where the timestep has none.
        """
        with torch.no_grad():
            prepared = self.prepare(image)
            return self._noise([prepared], self.backbone.encode(prepared.pixels))

    @property
    def has_noise(self) -> bool:
        """Whether any of the configured timesteps mixes noise into the image."""
        weights = (self.backbone.schedule.weights(t) for t in self.config.all_timesteps)
        return any(noise > 0 for _, noise in weights)

    def finish(self, block: int, tap: Tap, frame: Frame) -> DescriptorMap:
        """Turn a block's tap into descriptors: discard, treat, and lay out on the grid.

        Args:
            block: which block the tap is of.
            tap: its input, averaged over the noise draws (see `taps`).
            frame: how the image's pixels map onto the model's.
        """
        if not self._discards:
            return self._finish(block, tap, frame)
        known = self.known_channels(block)
        if known is not None:
            return self._finish(block, tap, frame, *(known,) * len(tap.x))
        marked = mark_massive_channels(tap.x)
        found = tuple(Discarded(each, "this image") for each in marked)
        steps = self.config.steps
        if not steps.learns and all(
            step.spec.apply is discard for step in steps.steps if step.wants("channels")
        ):
            return describe_tap(tap, frame, steps, marked, found, compiled=self.backbone.compiled)
        settle_checks()  # other steps take the channels' numbers
        images = zip(tap.rows(), found, strict=True)
        maps = [self._finish(block, image, frame, each) for image, each in images]
        return DescriptorMap(torch.cat([each.data for each in maps]), frame, found)

    def _finish(self, block: int, tap: Tap, frame: Frame, *found: Discarded) -> DescriptorMap:
        treatment, channels = self.config.steps, found[0].channels if found else ()
        learned = self._learned(block, tap.grid, channels) if treatment.learns else None
        return describe_tap(
            tap, frame, treatment, channels, found, learned, compiled=self.backbone.compiled
        )

    def _learned(
        self, block: int, grid: tuple[int, int], channels: tuple[int, ...]
    ) -> Mapping[int, Tensor]:
        """Return what the treatment's steps learn from a blank image, cached."""
        config = replace(self.config, block=block, massive_channels=channels, long_side=None)
        config = replace(config, rows_per_forward=None)
        key = f"{config} {self.backbone.settings()} {grid}"

        def learn() -> dict[int, Tensor]:
            side = self.backbone.pixels_per_token
            blank = torch.full((1, 3, grid[0] * side, grid[1] * side), 0.5, device="cpu")
            with torch.no_grad():
                taps, _ = DiTF(self.backbone, config).taps(blank, [block])
                return learn_from_blank(taps[block], config.treatment, channels)

        return learned_tensors(self.backbone, self.backbone.identity, key, learn)

    def _gradients(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(self.config.gradients and torch.is_grad_enabled())

    def _noise(self, images: Sequence[PreparedImage], latent: Tensor) -> Tensor:
        shape = (self.config.ensemble, *latent.shape[1:])
        if not self.has_noise:
            return torch.zeros(1, device="cpu").expand(len(latent), *shape)
        seen = self._arrange([i.pixels if i.exact is None else i.exact for i in images])
        # A clip of one frame has the noise of its image.
        seen = seen.squeeze(2) if seen.ndim == 5 else seen
        return draw_image_noise(seen, shape, seed=self.config.seed)

    def _condition(self, prompts: str | Sequence[str | None] | None, images: int) -> Conditioning:
        given: list[Any] = list(prompts) if isinstance(prompts, list | tuple) else [prompts]
        texts = [self.config.prompt if text is None else text for text in given]
        if len(texts) not in (1, images) or not all(isinstance(text, str) for text in texts):
            raise InvalidArgumentError(
                f"prompts must be one string, or one per image ({images}), got {prompts!r}"
            )
        return self.backbone.condition(texts).expand(images)

    def _taps(
        self, latent: Tensor, noise: Tensor, conditioning: Conditioning, blocks: Sequence[int]
    ) -> dict[int, Tap]:
        return mean_taps(
            self.backbone,
            latent,
            noise,
            self.config.timestep,
            conditioning,
            blocks=blocks,
            facet=self.config.facet,
            rows=self.config.rows_per_forward,
        )

    def drawn_tokens(self, image: ImageLike, block: int) -> Iterator[Tensor]:
        prepared = self.prepare(image)
        latent = self.backbone.encode(prepared.pixels)
        conditioning = self._condition(None, len(latent))
        for draw in torch.split(self._noise([prepared], latent), 1, dim=1):
            yield self._taps(latent, draw, conditioning, [block])[block].x
