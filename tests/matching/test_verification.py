from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError, MissingExtraError
from kornia_ditf.matching.verification import Estimator, Geometry, verify
from kornia_ditf.types import Matches

CAMERA = torch.tensor([[500.0, 0, 320], [0, 520, 240], [0, 0, 1]], dtype=torch.float64)
HOMOGRAPHY = torch.tensor([[1.1, 0.1, 5], [-0.05, 0.9, 3], [1e-4, 2e-4, 1]], dtype=torch.float64)
ESTIMATORS: tuple[Estimator, ...] = ("cv2", "kornia", "poselib")


def homogeneous(points: Tensor) -> Tensor:
    return torch.cat([points, torch.ones(len(points), 1, dtype=points.dtype)], 1)


def project(points: Tensor, matrix: Tensor) -> Tensor:
    found = homogeneous(points) @ matrix.T
    return found[:, :2] / found[:, 2:]


def scene(geometry: Geometry) -> Matches:
    """200 noisy matches that obey a geometry, then 100 that obey none."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    turn, move = 0.2, torch.tensor([1.0, 0.1, 0.2], dtype=torch.float64)
    rotation = torch.tensor(
        [[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]],
        dtype=torch.float64,
    )
    points = random(300, 3) * torch.tensor([4.0, 3, 4]) + torch.tensor([-2, -1.5, 4.0])
    a, b = points @ CAMERA.T, (points @ rotation.T + move) @ CAMERA.T
    a, b = a[:, :2] / a[:, 2:], b[:, :2] / b[:, 2:]
    if geometry == "homography":
        b = project(a, HOMOGRAPHY)
    b = b + 0.3 * torch.randn(300, 2, generator=generator, dtype=torch.float64)
    b[200:] = 500 * random(100, 2)
    return Matches(a.float(), b.float(), torch.ones(300))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("geometry", ["homography", "fundamental", "essential"])
def test_the_geometry_and_its_inliers_are_found(geometry: Geometry, estimator: Estimator) -> None:
    matches = scene(geometry)
    cameras = (CAMERA, CAMERA) if geometry == "essential" else None
    found = verify(matches, geometry, estimator=estimator, threshold=1.5, cameras=cameras)
    assert found.matrix is not None and found.matrix.shape == (3, 3)
    assert found.inliers.dtype == torch.bool and found.inliers.shape == (300,)
    assert found.inliers[:200].sum() > 190 and found.inliers[200:].sum() < 8
    assert len(found.inlier_matches) == found.inliers.sum()
    a = matches.points_a[:200].double()
    if geometry == "homography":
        assert (project(a, found.matrix) - project(a, HOMOGRAPHY)).norm(dim=1).max() < 0.5
    else:
        assert abs(found.matrix.norm() - 1) < 1e-9
        into = CAMERA.inverse() if geometry == "essential" else torch.eye(3).double()
        # Its epipolar lines pass the points of B closely.
        lines = homogeneous(a) @ into.T @ found.matrix.T @ into
        b = homogeneous(matches.points_b[:200].double())
        distances = (lines * b).sum(1).abs() / lines[:, :2].norm(dim=1)
        assert distances.median() < 0.5
        if geometry == "essential":
            first, second, third = torch.linalg.svdvals(found.matrix)
            assert abs(first - second) < 1e-3 and third < 1e-6


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_same_seed_gives_the_same_result(estimator: Estimator) -> None:
    matches = scene("homography")
    state = torch.random.get_rng_state()
    first, second = (verify(matches, estimator=estimator, seed=3) for _ in range(2))
    assert first.matrix is not None and second.matrix is not None
    assert torch.equal(first.matrix, second.matrix)
    assert torch.equal(first.inliers, second.inliers)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_matches_have_no_geometry(estimator: Estimator, count: int) -> None:
    matches = scene("homography")
    few = matches.best(count)
    for geometry in ("homography", "fundamental"):
        found = verify(few, geometry, estimator=estimator)
        assert found.matrix is None
        assert found.inliers.tolist() == [False] * count
        assert len(found.inlier_matches) == 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_match_many_times_is_one_match(estimator: Estimator) -> None:
    matches = scene("homography")
    points_a, points_b = matches.points_a[:1].expand(20, 2), matches.points_b[:1].expand(20, 2)
    same = Matches(points_a, points_b, torch.ones(20))
    assert verify(same, estimator=estimator).matrix is None
    assert verify(same, "essential", estimator=estimator, cameras=(CAMERA, CAMERA)).matrix is None


def test_poselib_that_is_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "poselib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kornia-ditf\[poselib\]'"):
        verify(scene("homography"), estimator="poselib")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"geometry": "affine"}, "geometry must be one of homography, .* got 'affine'"),
        ({"estimator": "magsac"}, "estimator must be one of cv2, .* got 'magsac'"),
        ({"threshold": 0}, "threshold must be above 0"),
        ({"confidence": 1.0}, r"confidence must lie in \(0, 1\)"),
        ({"max_iterations": 0}, "max_iterations must be 1 or more"),
        ({"geometry": "essential"}, "cameras, .* must be given for 'essential'"),
        ({"cameras": (CAMERA, CAMERA)}, "got some for 'homography'"),
        (
            {"geometry": "essential", "cameras": (CAMERA, 0 * CAMERA)},
            "camera of b must be an invertible matrix",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        verify(scene("homography"), **arguments)  # type: ignore[arg-type]


def test_points_that_are_not_finite_are_refused() -> None:
    matches = scene("homography")
    matches.points_b[3, 1] = torch.nan
    with pytest.raises(InvalidArgumentError, match="points_b must be finite"):
        verify(matches)


def test_matches_of_several_pairs_are_refused() -> None:
    points = torch.zeros(2, 5, 2)
    with pytest.raises(InvalidArgumentError, match="points_a of one pair must have the shape"):
        verify(Matches(points, points, torch.zeros(2, 5)))
