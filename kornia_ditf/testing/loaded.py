"""A backbone under test: loaded from a tiny checkpoint, with inputs for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.noise import draw_noise
from kornia_ditf.tap import BlockStream
from kornia_ditf.testing.rules import NotApplicable
from kornia_ditf.types import Conditioning, Tap

GRID = (4, 6)
"""Rows and columns of the tokens that most rules look at; not square."""
TIMESTEP = 260
"""The timestep at which they look."""


@dataclass(kw_only=True)
class Loaded:
    """A backbone under test: its spec, the tiny checkpoint, and what was loaded from it."""

    spec: BackboneSpec
    source: str | Path
    dtype: torch.dtype
    options: dict[str, Any] = field(default_factory=dict)
    encoded: dict[tuple[int, tuple[int, int]], Tensor] = field(default_factory=dict)
    """Clean latents, which rules share, by the number of images and their grid."""

    def load(self, **changes: Any) -> Backbone:
        """Load the backbone again."""
        return self.spec.load(self.source, **{"dtype": self.dtype, **self.options, **changes})

    @cached_property
    def backbone(self) -> Backbone:
        """The whole backbone, loaded once; rules leave it as it is."""
        return self.load()

    @cached_property
    def again(self) -> Backbone:
        """Loaded a second time, up to the last block; rules leave it as it is."""
        return self.load(block=self.last)

    @property
    def folder(self) -> Path:
        """The source, where it is a folder; otherwise the rule does not apply."""
        folder = Path(self.source)
        if not folder.is_dir():
            raise NotApplicable
        return folder

    @property
    def diffusers(self) -> DiffusersBackbone:
        """The backbone, where it is a diffusers model; otherwise the rule does not apply."""
        if not isinstance(self.backbone, DiffusersBackbone):
            raise NotApplicable
        return self.backbone

    @property
    def last(self) -> int:
        """The number of the last block."""
        return self.backbone.blocks - 1

    def images(self, count: int, grid: tuple[int, int] = GRID) -> Tensor:
        """Create images of noise for a grid of tokens."""
        side = self.backbone.pixels_per_token
        generator = torch.Generator().manual_seed(3)
        return torch.rand(count, 3, grid[0] * side, grid[1] * side, generator=generator)

    def latents(self, count: int, grid: tuple[int, int] = GRID) -> Tensor:
        """Create noisy latents as a descriptor would."""
        if (count, grid) not in self.encoded:
            self.encoded[count, grid] = self.backbone.encode(self.images(count, grid))
        clean = self.encoded[count, grid]
        noise = draw_noise((1, *clean.shape[1:]), seed=0)
        return self.backbone.schedule.mix(clean, noise, TIMESTEP)

    def conditioning(self, count: int, *prompts: str) -> Conditioning:
        """Create the conditioning of prompts, by default of the empty one."""
        return self.backbone.condition(list(prompts or ("",))).expand(count)

    def tap(self, latent: Tensor, block: int | None = None, timestep: float = TIMESTEP) -> Tap:
        """Capture a block, by default the last."""
        block = self.last if block is None else block
        return self.backbone.tap(latent, timestep, self.conditioning(len(latent)), block=block)


def numbered_blocks(
    backbone: DiffusersBackbone,
) -> Iterator[tuple[int, nn.Module, BlockStream]]:
    """Iterate over the blocks of all lists, with their numbers and declarations."""
    number = 0
    for stream in backbone.streams:
        blocks: Any = backbone.transformer.get_submodule(stream.blocks)
        for block in blocks:
            yield number, block, stream
            number += 1
