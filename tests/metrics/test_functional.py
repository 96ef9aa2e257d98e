"""Distances, homographies and areas under curves, against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.functional import (
    area_contributions,
    area_under_curve,
    corner_error,
    point_distances,
    project,
    within,
)

coordinates = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=8)


@given(points=coordinates, base=st.integers(1, 60))
def test_a_point_within_is_one_that_difts_expression_accepts(
    points: list[tuple[int, int]], base: int
) -> None:
    true = torch.zeros(len(points), 2, dtype=torch.float64)
    distances = point_distances(torch.tensor(points).double(), true)
    hits = within(distances, base, [0.1, 0.05], "<=")
    for row, alpha in zip(hits.tolist(), (0.1, 0.05), strict=True):
        assert row == [((x**2 + y**2) ** 0.5) / base <= alpha for x, y in points]


@given(points=coordinates, base=st.integers(1, 60))
def test_a_point_within_is_one_that_geoawares_expression_accepts(
    points: list[tuple[int, int]], base: int
) -> None:
    errors = torch.tensor(points).float().norm(dim=-1)
    alphas = torch.tensor([0.1, 0.05, 0.01])
    thresholds = torch.tensor([np.float64(base)] * len(points))
    expected = errors[None] < alphas[:, None] * thresholds[None]
    assert torch.equal(within(errors, base, [0.1, 0.05, 0.01], "<"), expected)
    expected = errors[None] < (alphas * base)[:, None]
    assert torch.equal(within(errors, base, [0.1, 0.05, 0.01], "<", single=True), expected)


def test_the_two_comparisons_differ_on_the_threshold_itself() -> None:
    distances = torch.tensor([1.0])
    assert within(distances, 100.0, [0.01], "<=").item()
    assert not within(distances, 100.0, [0.01], "<").item()


def test_wrong_shapes_and_bases_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="the same shape"):
        point_distances(torch.zeros(2, 2), torch.zeros(3, 2))
    with pytest.raises(InvalidArgumentError, match="above 0"):
        within(torch.zeros(1), 0.0, [0.1])
    with pytest.raises(InvalidArgumentError, match="comparison"):
        within(torch.zeros(1), 1.0, [0.1], "==")  # type: ignore[arg-type]


@given(seed=st.integers(0, 1000))
def test_the_corner_error_is_the_mean_over_four_corners(seed: int) -> None:
    generator = np.random.default_rng(seed)
    found, true = (np.eye(3) + generator.normal(0, [[0.1], [0.1], [1e-4]], (3, 3)) for _ in "ab")
    height, width = 30, 50
    errors = []
    for corner in ((0, 0), (0, height - 1), (width - 1, 0), (width - 1, height - 1)):
        p, q = (m @ np.array([*corner, 1.0]) for m in (found, true))
        errors.append(np.linalg.norm(p[:2] / p[2] - q[:2] / q[2]))
    error = corner_error(torch.from_numpy(found), torch.from_numpy(true), (height, width))
    assert error == pytest.approx(np.mean(errors))


def test_no_homography_and_one_to_infinity_are_infinitely_wrong() -> None:
    eye = torch.eye(3).double()
    assert corner_error(None, eye, (10, 10)) == math.inf
    assert corner_error(torch.zeros(3, 3), eye, (10, 10)) == math.inf


@given(
    errors=st.lists(st.floats(0, 20) | st.just(math.inf), min_size=1, max_size=12),
    threshold=st.sampled_from([1, 3, 5]),
)
def test_the_area_under_the_curve_is_the_mean_of_the_curve(
    errors: list[float], threshold: int
) -> None:
    ordered = sorted(errors)
    known = [(0.0, 0.0)] + [
        (error, rank / len(errors)) for rank, error in enumerate(ordered, 1) if error < threshold
    ]
    known.append((threshold, known[-1][1]))
    x, y = np.array(known).T
    # SuperGlue's pose_auc.
    expected = float(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2)) / threshold
    assert area_under_curve(errors, threshold) == pytest.approx(expected)


@given(errors=st.lists(st.floats(0, 20) | st.just(math.inf), min_size=1, max_size=12))
def test_contributions_to_an_area_have_the_area_as_their_mean(errors: list[float]) -> None:
    contributions = area_contributions(errors, 5)
    assert float(contributions.mean()) == pytest.approx(area_under_curve(errors, 5))
    plain = torch.tensor(errors, dtype=torch.float64).div(5).mul(-1).add(1).clamp(min=0)
    # Straight lines between the steps are worth half of one error at most.
    assert bool((contributions >= plain).all())
    assert int((contributions > plain).sum()) <= 1


def test_perfect_and_hopeless_errors_have_areas_one_and_zero() -> None:
    assert area_under_curve([0.0, 0.0], 3) == 1
    assert area_under_curve([9.0, math.inf], 3) == 0
    with pytest.raises(InvalidArgumentError, match="must not be empty"):
        area_under_curve([], 3)
    for wrong in ([math.nan], [-1.0]):
        with pytest.raises(InvalidArgumentError, match="negative or NaN"):
            area_under_curve(wrong, 3)


def test_projection_divides_by_the_third_coordinate() -> None:
    matrix = torch.tensor([[2.0, 0, 1], [0, 3, 0], [0, 0.5, 1]])
    assert torch.allclose(
        project(matrix, torch.tensor([[1.0, 2.0]])), torch.tensor([[1.5, 3.0]]).double()
    )
