"""Describe points of an image: by nano, and by what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from views import Array, Image

from kornia_ditf import DescriptorMap, DiTF, create_descriptor
from kornia_ditf.backbones.nano import NANO

DescribeImage = Callable[[Image], DescriptorMap]
Describe = Callable[[Image, Array], Tensor]
BASELINE = "dense RootSIFT (8)"


def load_nano(
    weights: Path,
    block: int,
    timestep: float,
    treatment: str = "adaln",
    discard: Sequence[int] = (),
    seed: int = 0,
    long_side: int | None = NANO.long_side,
) -> DiTF:
    """Load weights as users of the package do."""
    return create_descriptor(
        "nano",
        source=weights,
        block=block,
        timestep=timestep,
        treatment=treatment,
        massive_channels=tuple(discard),
        long_side=long_side,
        seed=seed,
    )


def remember(ditf: DiTF) -> DescribeImage:
    """Keep the maps of the images that were described last."""

    @lru_cache(128)
    def describe(pixels: bytes, shape: tuple[int, ...]) -> DescriptorMap:
        return ditf(np.frombuffer(pixels, np.uint8).reshape(shape))

    return lambda image: describe(image.tobytes(), image.shape)


def nano(describe_image: DescribeImage) -> Describe:
    """Describe points by the transformer, from one forward over the whole image."""

    def describe(image: Image, points: Array) -> Tensor:
        described = describe_image(image)
        return F.normalize(described.at(torch.from_numpy(points).float()[None])[0], dim=1)

    return describe


def rootsift(image: Image, points: Array) -> Tensor:
    """Describe points by SIFT of size 8, upright, with square roots."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    keypoints = [cv2.KeyPoint(float(x), float(y), 8.0, 0.0) for x, y in points]
    _, descriptors = cv2.SIFT.create().compute(gray, keypoints)
    return F.normalize(torch.from_numpy(descriptors).sqrt(), dim=1)


def rgb_patch(image: Image, points: Array) -> Tensor:
    """Describe points by the 16x16 pixels around them, less their mean."""
    x, y = np.floor(points).astype(int).T + 8
    padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="edge")
    offsets = np.arange(-7, 9)
    patches = padded[y[:, None, None] + offsets[:, None], x[:, None, None] + offsets]
    flat = torch.from_numpy(patches.reshape(len(points), -1, 3)).float()
    return F.normalize((flat - flat.mean(1, keepdim=True)).flatten(1), dim=1)
