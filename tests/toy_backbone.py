"""A backbone whose taps are known, and a configuration for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.config import DiTFConfig
from kornia_ditf.noise import RectifiedFlow
from kornia_ditf.types import Conditioning, Tap

WIDTH = 24
SPIKE = 5


class ToyBackbone(Backbone):
    """A backbone whose taps are a known function of latent, prompt and block."""

    def __init__(self, spike: float = 40.0) -> None:
        super().__init__()
        self.schedule = RectifiedFlow()
        self.spike = spike
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mixing", torch.randn(3 * 16, WIDTH, generator=generator))
        self.rows_seen: list[int] = []

    blocks = 4
    width = WIDTH
    pixels_per_token = 4

    def encode(self, image: Tensor) -> Tensor:
        return 2 * image - 1

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning({"length": torch.tensor([[float(len(text))] for text in prompts])})

    def taps(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, *, blocks: Sequence[int]
    ) -> dict[int, Tap]:
        self.rows_seen.append(len(latent))
        grid = (latent.shape[2] // 4, latent.shape[3] // 4)
        tokens = F.pixel_unshuffle(latent, 4).flatten(2).transpose(1, 2) @ self.mixing
        told = conditioning["length"]
        taps = {}
        for block in blocks:
            x = (tokens * (block + 1)).sin() + told[:, None]
            x[..., SPIKE] += self.spike
            shift, scale = tokens.mean(1).cos(), tokens.std(1).sin()
            taps[block] = Tap(x, shift, scale, grid)
        return taps


def config(**changes: object) -> DiTFConfig:
    known: dict[str, object] = {"block": 2, "timestep": 100, "long_side": 32}
    return DiTFConfig(**{**known, **changes})  # type: ignore[arg-type]
