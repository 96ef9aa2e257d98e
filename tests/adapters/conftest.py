"""What the tests of the adapters share: small images, a quick descriptor, one that is no DiT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.descriptor import DiTF
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.registry.lookup import create_ditf
from kornia_ditf.types import DescriptorMap, Frame

DATA = Path(__file__).parents[2] / "examples" / "data"


class Conv(DenseDescriptor):
    """A dense descriptor that is no DiT: 8 x 8 patches through one random layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 16, 8, stride=8)

    @property
    def width(self) -> int:
        return 16

    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        pixels = as_image(image)
        height, width = pixels.shape[2] // 8 * 8, pixels.shape[3] // 8 * 8
        fitted = nn.functional.interpolate(pixels.to(self.layer.weight), (height, width))
        return DescriptorMap(
            self.layer(fitted), Frame((pixels.shape[2], pixels.shape[3]), (height, width))
        )


@pytest.fixture
def conv() -> Conv:
    return Conv()


@pytest.fixture(scope="session")
def nano() -> DiTF:
    """Nano at a size that is quick; not to be changed."""
    return create_ditf("nano", long_side=96, block=2)


@pytest.fixture(scope="session")
def bgr() -> list[npt.NDArray[Any]]:
    """Two photographs of one wall, as OpenCV reads them, 160 x 128."""
    read = [cv2.imread(str(DATA / f"graffiti_{name}.jpg")) for name in "ab"]
    return [cv2.resize(image, (160, 128), interpolation=cv2.INTER_AREA) for image in read]


@pytest.fixture(scope="session")
def images(bgr: list[npt.NDArray[Any]]) -> list[Tensor]:
    """The same as Kornia has them, (1, 3, 128, 160)."""
    return [
        torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None] / 255
        for image in bgr
    ]
