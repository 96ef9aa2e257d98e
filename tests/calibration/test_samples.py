from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_ditf import load_dataset
from kornia_ditf.calibration.samples import homography, labelled, same_scene, semantic
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.functional import project
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.utils.cache import sha256


def pixels(image: torch.Tensor) -> DescriptorMap:
    """Describe each pixel by itself."""
    size = (image.shape[2], image.shape[3])
    return DescriptorMap(image - image.mean((2, 3), keepdim=True), Frame(size, size))


def positions(image: torch.Tensor) -> DescriptorMap:
    """Describe each pixel by where it is, whatever it shows."""
    height, width = image.shape[2:]
    x = torch.linspace(0, 3, width)[None].expand(height, -1)
    y = torch.linspace(0, 3, height)[:, None].expand(-1, width)
    waves = [torch.sin(x), torch.cos(x), torch.sin(y), torch.cos(y)]
    return DescriptorMap(torch.stack(waves)[None], Frame((height, width), (height, width)))


def test_warps_are_the_same_each_time_and_others_for_another_seed(
    photographs: list[Path],
) -> None:
    first, second = (same_scene(photographs, warps=2).samples[0] for _ in range(2))
    images = first.load()
    assert all(torch.equal(a, b) for a, b in zip(images, second.load(), strict=True))
    assert first.digest == second.digest
    assert not torch.equal(images[1], images[2])
    other = same_scene(photographs, warps=2, seed=1).samples[0]
    assert not torch.equal(images[1], other.load()[1]) and other.digest != first.digest


def test_the_known_place_of_a_point_is_where_the_warp_takes_its_pixel(tmp_path: Path) -> None:
    spot = np.zeros((120, 160, 3), np.uint8)
    spot[50:53, 90:93] = 255
    for name in "ab":
        Image.fromarray(spot).save(tmp_path / f"{name}.png")
    _, *warped = same_scene([tmp_path / "a.png", tmp_path / "b.png"], warps=4).samples[0].load()
    digest = sha256(tmp_path / "a.png")
    for index, copy in enumerate(warped):
        truth = project(homography((120, 160), digest, 0, index), torch.tensor([[91.0, 51.0]]))
        weight = (copy[0].sum(0) - 1).clamp_min(0).double()
        y, x = torch.meshgrid(torch.arange(120), torch.arange(160), indexing="ij")
        found = torch.stack([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
        assert (found - truth[0]).norm() < 0.5


def test_mere_position_scores_nothing_in_either_task(photographs: list[Path]) -> None:
    for task, most in ((same_scene(photographs, alpha=0.025), 0.2), (semantic(photographs), 0.05)):
        scores = [s.score([positions(image) for image in s.load()]) for s in task.samples]
        assert sum(found for found, _ in scores) < most * sum(points for _, points in scores)


def test_points_that_share_a_place_count_once(photographs: list[Path]) -> None:
    sample = semantic(photographs).samples[0]
    image, other, _ = sample.load()
    hub = pixels(other)
    hub = DescriptorMap(hub.data[:, :, :1, :1].expand_as(hub.data).contiguous(), hub.frame)
    found, points = sample.score([pixels(image), hub, pixels(image)])
    assert found <= 1 < points


def test_labelled_pairs_are_scored_by_the_data_sets_protocol() -> None:
    task = labelled(load_dataset("folder", "examples/data"), alpha=0.05)
    assert task.name == "folder all" and "PCK@0.05 of the image" in task.criterion
    assert len(task.samples) == 2
    sample = task.samples[0]
    assert [image.shape[2:] for image in sample.load()] == [(512, 640)] * 2


def test_a_threshold_beyond_what_warps_move_is_refused(photographs: list[Path]) -> None:
    with pytest.raises(InvalidArgumentError, match="alpha=2 is farther than the warps move"):
        semantic(photographs, alpha=2).samples[0].load()
