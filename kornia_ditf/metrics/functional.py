"""Metrics as functions: distances, correct points, corner errors and areas under curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.checks import check_number

Comparison: TypeAlias = Literal["<=", "<"]


def point_distances(found: Tensor, true: Tensor) -> Tensor:
    """Measure the distances of points from their true positions.

    Args:
        found: (x, y), shape (K, 2).
        true: (x, y), shape (K, 2).

    Returns:
        Euclidean distances, shape (K,), in the wider dtype of the two.

    Raises:
        InvalidArgumentError: the shapes differ.

    Example:
        >>> point_distances(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
        tensor([5.])
    """
    if found.shape != true.shape or found.ndim != 2 or found.shape[1] != 2:
        raise InvalidArgumentError(
            f"found and true must have the same shape (K, 2), got {tuple(found.shape)} and "
            f"{tuple(true.shape)}"
        )
    return (found - true).square().sum(1).sqrt()


def within(
    distances: Tensor,
    base: float,
    alphas: Sequence[float],
    comparison: Comparison = "<=",
    *,
    single: bool = False,
) -> Tensor:
    """Find which points are correct at each threshold, alpha times a base.

    Where a distance meets its threshold exactly, rounding decides, and two published scripts
    round differently. `<=` is DIFT's and DiTF's `distance / base <= alpha` in float64, and `<` is
    sd-dino's and GeoAware-SC's `distance < alpha * base` with alpha in float32.

    Args:
        distances: shape (K,).
        base: what thresholds are relative to, such as the longer side of a box, in the pixels of
            the distances.
        alphas: the thresholds.
        comparison: whether a distance of exactly the threshold is correct.
        single: round the thresholds of `<` to float32 too, as both scripts do where the base is
            the side of the padded square.

    Returns:
        shape (A, K), bool, a row for each alpha.

    Raises:
        InvalidArgumentError: the base is not above 0, or no such comparison.

    Example:
        >>> within(torch.tensor([4.0, 5.0, 6.0]), 50.0, [0.1])
        tensor([[ True,  True, False]])
    """
    check_number("base", base, "(0, inf)")
    if comparison == "<=":
        thresholds = torch.tensor(alphas, dtype=torch.float64)
        return (distances.cpu().double() / base)[None] <= thresholds[:, None]
    if comparison == "<":
        thresholds = torch.tensor(alphas, dtype=torch.float32).double() * base
        thresholds = thresholds.float().double() if single else thresholds
        return distances.cpu().double()[None] < thresholds[:, None]
    raise InvalidArgumentError(f"comparison must be '<=' or '<', got {comparison!r}")


def shares(hits: Tensor) -> Tensor:
    """Compute the share of a pair's points that is correct at each threshold.

    Args:
        hits: which points are correct, shape (A, K), bool, as from `within`.

    Returns:
        shape (A,), float64; 0 where there are no points.

    Example:
        >>> shares(torch.tensor([[True, True], [True, False]]))
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    return hits.cpu().double().sum(1) / max(hits.shape[1], 1)


def project(homography: Tensor, points: Tensor) -> Tensor:
    """Map points by a homography.

    Args:
        homography: shape (3, 3).
        points: (x, y), shape (K, 2).

    Returns:
        shape (K, 2), float64; infinite where a point goes to infinity.
    """
    matrix, points = homography.cpu().double(), points.cpu().double()
    mapped = torch.cat([points, points.new_ones(len(points), 1)], 1) @ matrix.T
    return mapped[:, :2] / mapped[:, 2:]


def corner_error(found: Tensor | None, true: Tensor, size: tuple[int, int]) -> float:
    """Measure how far a homography takes the four corners of an image from where they belong.

    The mean over the corners' pixels (0, 0), (W - 1, 0), (0, H - 1), (W - 1, H - 1), as in the
    evaluations of SuperPoint and DIFT.

    Args:
        found: shape (3, 3), from image A to image B; None where none could be fitted.
        true: shape (3, 3).
        size: height and width of image A.

    Returns:
        pixels of B; infinite where there is none, or where a corner goes to infinity.

    Example:
        >>> shift = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 4.0], [0.0, 0.0, 1.0]])
        >>> corner_error(shift, torch.eye(3), (10, 20))
        5.0
    """
    if found is None:
        return float("inf")
    right, bottom = size[1] - 1, size[0] - 1
    corners = torch.tensor([[0, 0], [0, bottom], [right, 0], [right, bottom]])
    error = float(point_distances(project(found, corners), project(true, corners)).mean())
    return error if error == error else float("inf")


def accuracy_contributions(errors: Sequence[float] | npt.NDArray[Any], threshold: float) -> Tensor:
    """Compute what each error contributes to accuracy, which is their mean.

    Args:
        errors: one for each pair; infinite where nothing was found.
        threshold: in the unit of the errors.

    Returns:
        1 for an error of at most the threshold and 0 for others, shape (N,), float64.

    Example:
        >>> accuracy_contributions([1.0, 5.0, 10.0], threshold=5.0)
        tensor([1., 1., 0.], dtype=torch.float64)
    """
    return (torch.as_tensor(errors, dtype=torch.float64) <= threshold).double()


def area_under_curve(errors: Sequence[float], threshold: float) -> float:
    """Compute the AUC of errors: the mean share of errors below e, for e from 0 to a threshold.

    The share is interpolated linearly: through (0, 0) and, for the i-th smallest of N errors,
    (e_i, i / N), as in the evaluations of SuperGlue, LoFTR and glue-factory.

    Args:
        errors: one for each pair; infinite where nothing was found.
        threshold: in the unit of the errors.

    Raises:
        InvalidArgumentError: there are no errors, one is NaN or negative, or the threshold is not
            above 0.

    Example:
        >>> area_under_curve([0.0, 0.0, 10.0], threshold=5.0)
        0.6666666666666666
    """
    contributions = area_contributions(errors, threshold)
    if not len(contributions):
        raise InvalidArgumentError("errors must not be empty")
    return float(contributions.sum()) / len(contributions)


def area_contributions(errors: Sequence[float] | npt.NDArray[Any], threshold: float) -> Tensor:
    """Compute what each error contributes to `area_under_curve`, which is their mean.

    Without interpolation an error e contributes max(0, 1 - e / threshold). Straight lines between
    the steps add half of the largest error below the threshold, here to that error's own.

    Args:
        errors: one for each pair.
        threshold: in the unit of the errors.

    Returns:
        shape (N,), float64.

    Raises:
        InvalidArgumentError: an error is NaN or negative, or the threshold is not above 0.

    Example:
        >>> area_contributions([1.0, 4.0, 10.0], threshold=5.0)
        tensor([0.8000, 0.6000, 0.0000], dtype=torch.float64)
    """
    values = torch.as_tensor(errors, dtype=torch.float64)
    if not 0 < threshold < math.inf or not bool((values >= 0).all()):
        raise InvalidArgumentError(
            f"errors must not be negative or NaN, and threshold must be above 0, got {threshold!r}"
        )
    contributions = (1 - values / threshold).clamp(min=0)
    below = torch.where(values < threshold, values, -1.0)
    if len(below) and below.max() > 0:
        contributions[below.argmax()] += below.max() / threshold / 2
    return contributions
