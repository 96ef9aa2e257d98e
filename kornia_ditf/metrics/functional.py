"""Points, homographies or flow, found and true, in; distances, hits and scores out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError

Comparison: TypeAlias = Literal["<=", "<"]


def point_distances(found: Tensor, true: Tensor) -> Tensor:
    """Measure how far points lie from where they belong.

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
            "found and true must have one shape (K, 2), "
            f"got {tuple(found.shape)} and {tuple(true.shape)}"
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
    """Tell which points are correct at each threshold, alpha times a base.

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
    if not base > 0:
        raise InvalidArgumentError(f"the base of thresholds must be above 0, got {base!r}")
    if comparison == "<=":
        thresholds = torch.tensor(alphas, dtype=torch.float64)
        return (distances.cpu().double() / base)[None] <= thresholds[:, None]
    if comparison == "<":
        thresholds = torch.tensor(alphas, dtype=torch.float32).double() * base
        thresholds = thresholds.float().double() if single else thresholds
        return distances.cpu().double()[None] < thresholds[:, None]
    raise InvalidArgumentError(f"comparison must be '<=' or '<', got {comparison!r}")


def project(homography: Tensor, points: Tensor) -> Tensor:
    """Take points through a homography.

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


def area_under_curve(errors: Sequence[float], threshold: float) -> float:
    """Integrate the share of errors below e for e from 0 to a threshold, divided by it.

    The curve goes through (0, 0) and, for the i-th smallest of N errors, through (e_i, i / N), with
    straight lines between, as in SuperGlue's evaluation.

    Args:
        errors: one for each pair; infinite where nothing was found.
        threshold: in the unit of the errors.

    Raises:
        InvalidArgumentError: there are no errors, or the threshold is not above 0.

    Example:
        >>> area_under_curve([0.0, 0.0, 10.0], threshold=5.0)
        0.6666666666666666
    """
    if not errors or not threshold > 0:
        raise InvalidArgumentError(
            f"errors must not be empty and threshold above 0, got {len(errors)} and {threshold!r}"
        )
    area, last_error, last_share = 0.0, 0.0, 0.0
    for rank, error in enumerate(sorted(errors), 1):
        if error >= threshold:
            break
        share = rank / len(errors)
        area += (error - last_error) * (last_share + share) / 2
        last_error, last_share = error, share
    return (area + (threshold - last_error) * last_share) / threshold


def end_point_error(found: Tensor, true: Tensor, valid: Tensor | None = None) -> Tensor:
    """Measure each vector of a flow: the length of its difference from the true one.

    Args:
        found: (dx, dy), shape (..., 2).
        true: same shape.
        valid: which count, shape (...), bool; None is those whose true vector is finite.

    Returns:
        the lengths of those that count, shape (N,), float64.

    Raises:
        InvalidArgumentError: the shapes differ.
    """
    if found.shape != true.shape or found.shape[-1:] != (2,):
        raise InvalidArgumentError(
            "found and true must have one shape (..., 2), "
            f"got {tuple(found.shape)} and {tuple(true.shape)}"
        )
    chosen = torch.isfinite(true).all(-1) if valid is None else valid
    return point_distances(found[chosen].cpu().double(), true[chosen].cpu().double())
