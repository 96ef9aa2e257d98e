"""A descriptor of patches that sees little around them, and images of smooth noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.preprocess import ImageLike, as_image, fit_image
from kornia_ditf.types import DescriptorMap


@dataclass(frozen=True)
class Config:
    long_side: int = 128


class Local(DenseDescriptor):
    """Descriptors of patches of 8 pixels that see 12 pixels around them."""

    width = 24

    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.sizes: list[int] = []
        generator = torch.Generator().manual_seed(0)
        self.filters = nn.Parameter(torch.randn(24, 3, 32, 32, generator=generator), False)

    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        fitted, frame = fit_image(as_image(image), self.config.long_side, 8)
        self.sizes.append(fitted.shape[2] * fitted.shape[3])
        padded = F.pad(fitted - 0.5, (12,) * 4, mode="reflect")
        return DescriptorMap(F.conv2d(padded, self.filters, stride=8), frame)


def texture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, height // 6, width // 6, generator=generator)
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
