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
    distances: Tensor, base: float, alphas: Sequence[float], comparison: Comparison = "<="
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
        return (distances.double() / base)[None] <= thresholds[:, None]
    if comparison == "<":
        thresholds = torch.tensor(alphas, dtype=torch.float32).double() * base
        return distances.double()[None] < thresholds[:, None]
    raise InvalidArgumentError(f"comparison must be '<=' or '<', got {comparison!r}")
