"""Exact mutual nearest neighbours by cosine.

The cosines of two sets are computed in float32, a strip of rows at a time, with running maxima in
both directions. Nothing is read back to the host before a result is selected, so that a GPU is
never waited for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_comparable, check_tensor, full_precision

STRIP = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Cosines held at once: a strip stays in a CPU's cache, and fills a GPU."""

RADIUS = 10.0
"""Pixels around the nearest in which no second is sought, as in `kornia.feature.match_fginn`."""

_EXACT = "donot_use_mm_for_euclid_dist"
_INDISTINCT = 1e-6  # a squared distance of unit vectors that rounding may make of none


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Unit vectors in float32, and which of them take part; see `as_vectors`.

    Args:
        units: shape (B, N, D).
        penalty: 0, or -inf where a vector takes no part, shape (B, N).
        largest: the largest absolute value, shape (); not finite where any is not.
        points: where they lie in the image, shape (B, N, 2), if their distances matter.
    """

    units: Tensor
    penalty: Tensor
    largest: Tensor
    points: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The nearest vector of B for each of A.

    Args:
        nearest: its row, int64, shape (B, N).
        scores: its cosine, shape (B, N); -inf where either set is empty.
        kept: whether the pair is mutual and passes all tests, bool, shape (B, N).
    """

    nearest: Tensor
    scores: Tensor
    kept: Tensor


def mutual_nearest(
    descriptors_a: Tensor,
    descriptors_b: Tensor,
    *,
    min_score: float | None = None,
    ratio: float | None = None,
    mask_a: Tensor | None = None,
    mask_b: Tensor | None = None,
    points_a: Tensor | None = None,
    points_b: Tensor | None = None,
    radius: float = RADIUS,
) -> tuple[Tensor, Tensor]:
    """Find mutual nearest neighbours by cosine.

    The same pairs as from the argmax of the whole cosine matrix along both axes, which is never
    held; no descriptor is in two pairs. Cosines that differ by less than 1e-6 may be ranked
    either way. Zero vectors have no direction and match nothing.

    Args:
        descriptors_a: shape (N, D), not necessarily normalised; N may be 0.
        descriptors_b: shape (M, D); M may be 0.
        min_score: discard pairs of a lower cosine, in [-1, 1].
        ratio: discard pairs unless the distance of their unit vectors is at most `ratio` times
            that to the second nearest, in both directions (Lowe's test; `match_smnn` in Kornia),
            in (0, 1]. Pairs without a second, or with one that is as near, are discarded.
        mask_a: which descriptors of A take part, bool, shape (N,); all by default.
        mask_b: the same for B, shape (M,).
        points_a: where the descriptors of A lie in pixels, shape (N, 2). With it, the second
            nearest for `ratio` is the nearest outside `radius` around the first (FGINN, Mishkin
            et al. 2015): two keypoints on one corner do not rule each other out.
        points_b: the same for B, shape (M, 2).
        radius: that radius in pixels, at least 0.

    Returns:
        pairs of row numbers (a, b), int64, shape (K, 2), in ascending order of a; and their
        cosines, float32, shape (K,).

    Raises:
        InvalidArgumentError: a wrong shape or value, different widths or devices, or values that
            are not finite.

    Example:
        >>> indices, scores = mutual_nearest(torch.eye(3), 5 * torch.eye(3)[[2, 0]])
        >>> indices
        tensor([[0, 1],
                [2, 0]])
        >>> scores
        tensor([1., 1.])
    """
    check_limits(min_score, ratio, radius)
    a, b = _read(descriptors_a, descriptors_b, (mask_a, mask_b), (points_a, points_b))
    with full_precision(a.units.device):
        found = find_mutual(a, b, min_score=min_score, ratio=ratio, radius=radius)
        check_all_finite(a, b)
        rows = found.kept[0].nonzero()[:, 0]
        return torch.stack([rows, found.nearest[0, rows]], 1), found.scores[0, rows]


def nearest_two(
    descriptors_a: Tensor,
    descriptors_b: Tensor,
    points_b: Tensor | None = None,
    *,
    radius: float = RADIUS,
) -> tuple[Tensor, Tensor]:
    """Find the nearest neighbour by cosine, and how near the second is.

    Args:
        descriptors_a: shape (N, D), not necessarily normalised.
        descriptors_b: shape (M, D).
        points_b: where the descriptors of B lie in pixels, shape (M, 2): the second is then the
            nearest outside `radius` around the first.
        radius: in pixels, at least 0.

    Returns:
        rows of the nearest of B, int64, shape (N,); and the cosines of the nearest and of the
        second, float32, shape (N, 2), -inf where there is none.

    Raises:
        InvalidArgumentError: a wrong shape or value, different widths or devices, or values that
            are not finite.

    Example:
        >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
        >>> nearest_two(a, b)
        (tensor([0]), tensor([[1.0000, 0.6000]]))
        >>> nearest_two(a, b, torch.tensor([[0.0, 0.0], [6.0, 0.0], [20.0, 0.0]]))[1]
        tensor([[1., 0.]])
    """
    check_limits(None, None, radius)
    a, b = _read(descriptors_a, descriptors_b, (None, None), (None, points_b))
    with full_precision(a.units.device):
        nearest, first, second = _nearest_two(a, b, radius)
        check_all_finite(a, b)
        return nearest[0], torch.stack([first[0], second[0]], 1)


def as_vectors(
    descriptors: Tensor, mask: Tensor | None = None, points: Tensor | None = None
) -> Vectors:
    """Normalise descriptors (B, N, D) of any length and dtype; mask is (B, N), points (B, N, 2)."""
    values, tiny = descriptors.float(), torch.finfo(torch.float32).tiny
    if not values.numel():
        return Vectors(values, values.new_zeros(values.shape[:2]), values.new_zeros(()), points)
    # By the largest value first: the squares of large or small ones would overflow or vanish.
    peak = torch.maximum(values.amax(2), -values.amin(2))
    units = values / peak.clamp_min(tiny)[..., None]
    units /= torch.linalg.vector_norm(units, dim=2, keepdim=True).clamp_min_(1)
    absent = peak <= tiny
    if mask is not None:
        absent |= ~mask.to(absent.device)
    penalty = torch.zeros_like(peak).masked_fill_(absent, -torch.inf)
    return Vectors(units, penalty, peak.amax(), points)


def find_mutual(
    a: Vectors, b: Vectors, *, min_score: float | None, ratio: float | None, radius: float
) -> Neighbours:
    """Find mutual nearest neighbours in B pairs of sets."""
    n, m = a.penalty.shape[1], b.penalty.shape[1]
    rows = torch.arange(n, device=a.units.device).expand(len(a.units), n)
    if not a.units.numel() or not b.units.numel():
        return Neighbours(torch.zeros_like(rows), a.penalty, torch.zeros_like(rows).bool())
    if ratio is None:
        indices, values, maxima = [], [], []
        for cosines in _strips(a, b):
            indices.append(cosines.argmax(2, keepdim=True))
            values.append(cosines.gather(2, indices[-1]))
            maxima.append(cosines.amax(1))
        nearest, scores = (torch.cat(parts, 1).squeeze(2) for parts in (indices, values))
        kept = scores == torch.stack(maxima).amax(0).gather(1, nearest)
        # Where several are equally near to one of B, the first is its nearest.
        first = rows.new_full((len(rows), m), n)
        first.scatter_reduce_(1, nearest, rows.masked_fill(~kept, n), "amin")
        kept &= first.gather(1, nearest) == rows
    else:
        nearest, scores, second = _nearest_two(a, b, radius)
        back, score_b, second_b = _nearest_two(b, a, radius)
        kept = (back.gather(1, nearest) == rows) & _is_distinct(scores, second, ratio)
        kept &= _is_distinct(score_b, second_b, ratio).gather(1, nearest)
    kept &= scores >= (-1.5 if min_score is None else min_score)
    return Neighbours(nearest, scores.clamp(-1, 1), kept)


def _nearest_two(a: Vectors, b: Vectors, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Find the nearest of B, its cosine, and the second's; shape (B, N) each."""
    if not a.units.numel() or not b.units.numel():
        none = torch.full_like(a.penalty, -torch.inf)
        return torch.zeros_like(none, dtype=torch.int64), none, none
    found = []
    for cosines in _strips(a, b):
        index = cosines.argmax(2, keepdim=True)
        value = cosines.gather(2, index)
        cosines.scatter_(2, index, -torch.inf)
        if b.points is not None:
            places = b.points.gather(1, index.expand(-1, -1, 2))
            near = torch.cdist(places, b.points, compute_mode=_EXACT) <= radius
            cosines.masked_fill_(near, -torch.inf)
        found.append((index[..., 0], value[..., 0], cosines.amax(2)))
    nearest, first, second = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    return nearest, first, second


def _is_distinct(first: Tensor, second: Tensor, ratio: float) -> Tensor:
    nearest, other = (2 - 2 * cosines for cosines in (first, second))
    return other.isfinite() & (other > _INDISTINCT) & (nearest <= ratio**2 * other)


def _strips(a: Vectors, b: Vectors) -> Iterator[Tensor]:
    """Yield cosines (B, some, M) of some rows of A with all of B, -inf for what is masked."""
    each = len(b.units) * b.units.shape[1]
    held = STRIP.get(a.units.device.type, STRIP["cuda"])
    if b.points is not None:
        held *= 2  # each strip takes more operations
    rows = max(1, held // each)
    columns, absent = b.units.transpose(1, 2), b.penalty[:, None]
    for units, penalty in zip(
        torch.split(a.units, rows, 1), torch.split(a.penalty[:, :, None], rows, 1), strict=True
    ):
        yield torch.baddbmm(absent, units, columns).add_(penalty)


def check_all_finite(a: Vectors, b: Vectors) -> None:
    """Raise InvalidArgumentError unless all values are finite."""
    for name, largest in zip("ab", torch.stack([a.largest, b.largest]).tolist(), strict=True):
        if not math.isfinite(largest):
            raise InvalidArgumentError(
                f"descriptors_{name} must be finite, got NaN or infinity among them"
            )


def check_limits(min_score: float | None, ratio: float | None, radius: float) -> None:
    """Raise InvalidArgumentError unless the numbers of a test are in range."""
    if min_score is not None and not -1 <= min_score <= 1:
        raise InvalidArgumentError(f"min_score must lie in [-1, 1], got {min_score}")
    if ratio is not None and not 0 < ratio <= 1:
        raise InvalidArgumentError(f"ratio must lie in (0, 1], got {ratio}")
    if not radius >= 0:
        raise InvalidArgumentError(f"radius must be 0 pixels or more, got {radius}")


@torch.no_grad()
def _read(
    descriptors_a: Tensor,
    descriptors_b: Tensor,
    masks: tuple[Tensor | None, Tensor | None],
    points: tuple[Tensor | None, Tensor | None],
) -> tuple[Vectors, Vectors]:
    """Check one pair of sets, and normalise them with B = 1."""
    check_tensor(descriptors_a, "descriptors_a", "(N, D)")
    check_tensor(descriptors_b, "descriptors_b", "(M, D)")
    check_comparable(descriptors_a, descriptors_b, descriptors_a.shape[1], descriptors_b.shape[1])
    sides = []
    for name, descriptors, mask, places in zip(
        "ab", (descriptors_a, descriptors_b), masks, points, strict=True
    ):
        count = len(descriptors)
        if mask is not None:
            check_tensor(mask, f"mask_{name}", "(N,)")
            if mask.dtype != torch.bool or mask.shape != (count,):
                raise InvalidArgumentError(
                    f"mask_{name} must be bool of shape ({count},), "
                    f"got {mask.dtype} of {tuple(mask.shape)}"
                )
        if places is not None:
            check_tensor(places, f"points_{name}", "(N, 2)")
            if places.shape != (count, 2):
                raise InvalidArgumentError(
                    f"points_{name} must have the shape ({count}, 2), got {tuple(places.shape)}"
                )
            places = places.to(descriptors.device, torch.float32)[None]
        sides.append(as_vectors(descriptors[None], None if mask is None else mask[None], places))
    return sides[0], sides[1]
