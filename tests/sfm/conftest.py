from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kornia_ditf.sfm.graph import CorrespondenceGraph, ViewedImage, merge_keypoints
from kornia_ditf.types import Matches

SIZE = (120, 160)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs: three of one wall, each a few pixels further, and one of another."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    walls = [generator.integers(0, 256, (40, 60, 3), np.uint8) for _ in range(2)]
    for name, wall, shift in (("a", 0, 0), ("b", 0, 8), ("in/c", 0, 16), ("d", 1, 0)):
        large = cv2.resize(walls[wall], (240, 160), interpolation=cv2.INTER_CUBIC)
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), large[20 : 20 + SIZE[0], shift : shift + SIZE[1]])
    return folder


@pytest.fixture
def graph() -> CorrespondenceGraph:
    """Three cameras that see 60 points in space."""
    generator = torch.Generator().manual_seed(0)
    world = torch.rand(60, 3, generator=generator) * torch.tensor([4.0, 3.0, 3.0])
    world += torch.tensor([-2.0, -1.5, 5.0])
    views = []
    for shift in (0.0, 0.6, 1.2):
        seen = world - torch.tensor([shift, 0.0, 0.1 * shift])
        views.append(192 * seen[:, :2] / seen[:, 2:] + torch.tensor([79.5, 59.5]))
    pairs = []
    for first, second in ((0, 1), (0, 2), (1, 2)):
        matches = Matches(views[first], views[second], torch.rand(60, generator=generator))
        pairs.append((first, second, matches, torch.arange(60) < 55))
    images = [ViewedImage(name, SIZE) for name in ("a.png", "b.png", "in/c.png")]
    return merge_keypoints(images, pairs, cell=0)
