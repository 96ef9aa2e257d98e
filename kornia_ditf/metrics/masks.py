"""Region similarity J and boundary accuracy F of masks.

The arithmetic is that of the DAVIS challenge's own davis2017-evaluation (Perazzi et al., CVPR
2016; Pont-Tuset et al., arXiv 1704.00675), which says what both scores mean.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from kornia_ditf.errors import InvalidArgumentError

Mask: TypeAlias = npt.NDArray[Any]
Values = TypeVar("Values", float, npt.NDArray[np.float64])

_BOUNDARY = 0.008
"""The tolerance of boundaries, as a part of the image's diagonal."""


class Statistics(NamedTuple):
    """What DAVIS makes of an object's values over frames."""

    mean: float
    recall: float
    decay: float


def region_similarity(true: Mask, found: Mask, void: Mask | None = None) -> float:
    """Compute J of one object in one frame: intersection over union.

    Args:
        true: where the object is, shape (H, W); all but 0 is object.
        found: where it was found.
        void: pixels that do not count; None is none.

    Returns:
        J in [0, 1]; 1 where both masks are empty.

    Raises:
        InvalidArgumentError: the shapes differ.

    Example:
        >>> import numpy as np
        >>> region_similarity(np.array([[1, 1, 0]]), np.array([[0, 1, 1]]))
        0.3333333333333333
    """
    true, found, counts = _checked(true, found, void)
    union = int(((true | found) & counts).sum())
    return int((true & found & counts).sum()) / union if union else 1.0


def boundary_accuracy(true: Mask, found: Mask, void: Mask | None = None) -> float:
    """Compute F of one object in one frame: how well its boundary was found.

    A pixel of one boundary is correct if a pixel of the other lies within a disk whose radius is
    0.008 of the image's diagonal, rounded up. F is the harmonic mean of precision and recall.

    Args:
        true: where the object is, shape (H, W); all but 0 is object.
        found: where it was found.
        void: pixels that do not count, taken as no object; None is none.

    Returns:
        F in [0, 1]; 1 where neither mask has a boundary.

    Raises:
        InvalidArgumentError: the shapes differ.
    """
    import cv2

    true, found, counts = _checked(true, found, void)
    edges_found, edges_true = _boundary(found & counts), _boundary(true & counts)
    total_found, total_true = int(edges_found.sum()), int(edges_true.sum())
    if not total_found or not total_true:
        return float(total_found == total_true)
    disk = _disk(math.ceil(_BOUNDARY * math.hypot(*true.shape)))
    near_found = cv2.dilate(edges_found.astype(np.uint8), disk)
    near_true = cv2.dilate(edges_true.astype(np.uint8), disk)
    precision = int((edges_found * near_true).sum()) / total_found
    recall = int((edges_true * near_found).sum()) / total_true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def statistics(values: npt.NDArray[np.float64]) -> Statistics:
    """Summarise an object's J or F over its frames.

    Args:
        values: one for each frame that is scored, in order.

    Returns:
        the mean; the share of frames above 0.5; and the mean of the first quarter less that of
        the last, where neighbouring quarters share the frame between them.

    Raises:
        InvalidArgumentError: there are no values.

    Example:
        >>> import numpy as np
        >>> statistics(np.array([1.0, 0.8, 0.6, 0.4]))
        Statistics(mean=0.7, recall=0.75, decay=0.4)
    """
    if not len(values):
        raise InvalidArgumentError(
            "an object needs a value for at least one frame; the first and the last frame of a "
            "sequence are not scored, so it needs at least three frames"
        )
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return Statistics(
        float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean())
    )


def j_and_f(j: Values, f: Values) -> Values:
    """Compute J&F, the mean of an object's J and F, or of several objects' sums of them."""
    return (j + f) / 2


def _checked(true: Mask, found: Mask, void: Mask | None) -> tuple[Mask, Mask, Mask]:
    void = np.zeros(true.shape, bool) if void is None else np.asarray(void).astype(bool)
    if true.ndim != 2 or not true.shape == found.shape == void.shape:
        raise InvalidArgumentError(
            f"masks must have the same shape (H, W), got {true.shape}, {found.shape}, {void.shape}"
        )
    return np.asarray(true).astype(bool), np.asarray(found).astype(bool), ~void


def _boundary(mask: Mask) -> Mask:
    """Mark pixels that differ from their right, lower or diagonal neighbour."""
    right, below, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1], below[:-1], diagonal[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edges = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    # Beyond the image's last row and column nothing differs.
    edges[-1], edges[:, -1] = mask[-1] ^ right[-1], mask[:, -1] ^ below[:, -1]
    edges[-1, -1] = False
    return edges


def _disk(radius: int) -> npt.NDArray[np.uint8]:
    axis = np.arange(-radius, radius + 1)
    return (axis[:, None] ** 2 + axis[None] ** 2 <= radius**2).astype(np.uint8)
