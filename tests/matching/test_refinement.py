from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from independent import smooth_map
from torch import Tensor

import kornia_ditf as kd
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.refinement import refine
from kornia_ditf.types import DescriptorMap, Frame, Matches

DATA = Path(__file__).parents[2] / "examples" / "data"


@pytest.mark.parametrize("method", ["parabola", "softargmax"])
def test_matches_move_towards_the_truth_between_tokens(method: str) -> None:
    a, b = smooth_map((0, 0)), smooth_map((2.5, -3.0))
    matches = kd.match(a, b)
    inner = ((matches.points_a > 12) & (matches.points_a < 84)).all(1)
    truth = matches.points_a - torch.tensor([2.5, -3.0])
    before = (matches.points_b - truth).norm(dim=1)[inner]
    found = refine(matches, a, b, method=method)  # type: ignore[arg-type]
    after = (found.points_b - truth).norm(dim=1)[inner]
    assert after.median() < 0.6 * before.median()
    assert torch.equal(found.points_a, matches.points_a)
    assert torch.equal(found.scores, matches.scores)


def test_the_parabola_is_that_of_three_cosines() -> None:
    generator = torch.Generator().manual_seed(0)
    a = DescriptorMap(torch.randn(1, 8, 1, 1, generator=generator), Frame((10, 10), (10, 10)))
    b = DescriptorMap(torch.randn(1, 8, 3, 3, generator=generator), Frame((30, 60), (9, 9)))
    cosines = torch.cosine_similarity(a.data.view(8, 1), b.data.view(8, 9), dim=0).view(3, 3)
    b.data[0, :, 1, 1] = a.data[0, :, 0, 0]
    point = torch.tensor([[29.5, 14.5]])
    found = refine(Matches(torch.tensor([[4.5, 4.5]]), point, torch.ones(1)), a, b).points_b
    expected = []
    for low, high, cell, middle in (
        (cosines[1, 0], cosines[1, 2], 20, 29.5),
        (cosines[0, 1], cosines[2, 1], 10, 14.5),
    ):
        bend = np.polyfit([-1, 0, 1], [low, 1.0, high], 2)
        expected.append(middle + cell * -bend[1] / (2 * bend[0]))
    torch.testing.assert_close(found[0], torch.tensor(expected).float(), rtol=0, atol=1e-4)


def test_at_the_border_no_point_moves_across_it() -> None:
    data = F.one_hot(torch.arange(6)).float().T.view(1, 6, 2, 3)
    described = DescriptorMap(data, Frame((16, 24), (16, 24)))
    matches = kd.match(described, described)
    for method in ("parabola", "softargmax"):
        found = refine(matches, described, described, method=method)  # type: ignore[arg-type]
        assert bool((found.points_b >= 3).all())
        assert bool((found.points_b <= torch.tensor([20.0, 12.0])).all())


def test_no_matches_stay_none() -> None:
    described = smooth_map((0, 0))
    none = Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
    assert len(refine(none, described, described)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "spline"}, "method must be one of parabola, softargmax, got 'spline'"),
        ({"radius": 0}, "radius must be 1 or more"),
        ({"beta": 0.0}, "beta must be above 0"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, object], message: str) -> None:
    described = smooth_map((0, 0))
    with pytest.raises(InvalidArgumentError, match=message):
        refine(kd.match(described, described), described, described, **arguments)  # type: ignore[arg-type]


def graffiti(points: Tensor) -> Tensor:
    homography = np.array(json.loads((DATA / "graffiti.json").read_text())["homography_a_to_b"])
    found = np.c_[points.numpy(), np.ones(len(points))] @ homography.T
    return torch.from_numpy(found[:, :2] / found[:, 2:]).float()


def motorcycle(points: Tensor) -> Tensor:
    disparity = cv2.imread(str(DATA / "motorcycle_disparity.png"), cv2.IMREAD_UNCHANGED) / 16
    x, y = points.round().long().unbind(1)
    shift = torch.from_numpy(disparity)[y, x].float()
    shift[shift == 0] = torch.nan
    return points - torch.stack([shift, torch.zeros_like(shift)], 1)


@pytest.mark.parametrize("truth", [graffiti, motorcycle])
def test_on_photographs_the_median_error_falls(truth: Callable[[Tensor], Tensor]) -> None:
    ditf = kd.create_descriptor("nano")
    a, b = (ditf(DATA / f"{truth.__name__}_{side}.jpg") for side in "ab")
    matches = kd.match(a, b)

    def error(found: Matches) -> float:
        return float((found.points_b - truth(found.points_a)).norm(dim=1).nanmedian())

    for method in ("parabola", "softargmax"):
        assert error(refine(matches, a, b, method=method)) < 0.93 * error(matches)  # type: ignore[arg-type]
