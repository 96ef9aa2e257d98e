"""A model whose features are planted, and small images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.calibration.grid import Grid
from kornia_ditf.descriptor import DiTF, DiTFConfig
from kornia_ditf.noise import RectifiedFlow
from kornia_ditf.types import Conditioning, Tap


class Planted(Backbone):
    """Tokens are patches of 8 x 8 pixels; blocks and timesteps replace shares of them by noise.

    Args:
        destroyed: the timestep at which nothing of the image is left.
        best: the block at which everything is there.
    """

    schedule = RectifiedFlow()
    identity = "planted@1"
    blocks, width, pixels_per_token = 3, 192, 8

    def __init__(self, destroyed: float = 100, best: int = 1) -> None:
        super().__init__()
        self.destroyed, self.best = destroyed, best
        self.calls = 0
        self.left: Literal["noise", "constant", "position"] = "noise"
        """What is left there: a noise of the image's own, one vector, or each token's place."""

    def encode(self, image: Tensor) -> Tensor:
        return 2 * image - 1

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning({"none": torch.zeros(len(prompts), 1)})

    def taps(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, *, blocks: Sequence[int]
    ) -> dict[int, Tap]:
        self.calls += 1
        tokens = torch.nn.functional.pixel_unshuffle(latent, 8)
        grid = (tokens.shape[2], tokens.shape[3])
        x = tokens.flatten(2).transpose(1, 2)
        seed = int(latent.double().abs().sum().mul(1e6).item()) % 2**31
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        left = {"noise": noise, "constant": torch.ones_like(x), "position": places(x, grid)}[
            self.left
        ]
        found = {}
        for block in blocks:
            share = 0.4 * abs(block - self.best)
            kept = (1 - share) * x + share * noise
            found[block] = Tap(kept if timestep != self.destroyed else left, None, None, grid)
        return found


def places(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return a code (B, N, D) of where each token lies, whatever it shows."""
    y, x_ = torch.meshgrid(*(torch.linspace(0, 3, side) for side in grid), indexing="ij")
    code = torch.stack([y.sin(), y.cos(), x_.sin(), x_.cos()], -1).reshape(1, -1, 4)
    return torch.nn.functional.pad(code, (0, x.shape[2] - 4)).expand_as(x)


@pytest.fixture
def ditf() -> DiTF:
    return DiTF(Planted(), DiTFConfig(block=2, timestep=0))


@pytest.fixture
def grid() -> Grid:
    return Grid(
        blocks=(0, 1, 2),
        timesteps=(0, 50, 100),
        long_sides=(48, 64),
        treatments=("raw",),
        draws=(1, 2),
    )


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """Three pictures of coloured blobs."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    paths = []
    for index in range(3):
        blobs = Image.fromarray(generator.integers(0, 256, (9, 12, 3), np.uint8))
        paths.append(folder / f"{index}.png")
        blobs.resize((64, 48), Image.Resampling.BICUBIC).save(paths[-1])
    return paths
