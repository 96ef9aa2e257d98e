"""Exact mutual nearest neighbours by cosine.

The cosines of two sets are computed in float32, a strip of rows at a time, with running maxima in
both directions. Nothing is read back to the host before a result is selected, so that a GPU is
never waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_comparable, full_precision
from kornia_ditf.utils.checks import check_finite, check_number, check_tensor

STRIP = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Cosines held at once: a strip stays in a CPU's cache, and fills a GPU."""

RADIUS = 10.0
"""Pixels around the nearest in which no second is sought, as in `kornia.feature.match_fginn`."""

_EXACT = "donot_use_mm_for_euclid_dist"
_SHORT, _LONG = 1e-15, 1e15
"""Vectors of lengths between have exact squares in float32."""
_UNIT = 4e-7
"""How far a length may be from 1 to change no cosine by 1e-6."""
_INDISTINCT = 1e-6  # a squared distance of unit vectors that rounding may make of none


class Vectors(NamedTuple):
    """B sets of descriptors that are compared with others.

    Args:
        values: shape (B, N, D).
        present: which take part, bool, shape (B, N); None where all do.
        points: where they lie in the image, shape (B, N, 2), if their distances matter.
    """

    values: Tensor
    present: Tensor | None = None
    points: Tensor | None = None


class Neighbours(NamedTuple):
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
    a = _read("a", descriptors_a, mask_a, points_a)
    b = _read("b", descriptors_b, mask_b, points_b)
    with full_precision(descriptors_a.device):
        found = find_mutual(a, b, min_score=min_score, ratio=ratio, radius=radius)
        rows = found.kept.nonzero()[:, 1]
        return torch.stack([rows, found.nearest.take(rows)], 1), found.scores.take(rows)


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
    a, b = _read("a", descriptors_a), _read("b", descriptors_b, None, points_b)
    with full_precision(descriptors_a.device):
        a, b = _normalise(a, b)
        nearest, first, second = _nearest_two(a, b, radius)
        return nearest[0], torch.stack([first[0], second[0]], 1)


def find_mutual(
    a: Vectors, b: Vectors, *, min_score: float | None, ratio: float | None, radius: float
) -> Neighbours:
    """Find mutual nearest neighbours in B pairs of sets.

    Raises:
        InvalidArgumentError: different widths or devices, or a value is not finite.
    """
    a, b = _normalise(a, b)
    n, m = a.values.shape[1], b.values.shape[1]
    rows = torch.arange(n, device=a.values.device)
    if not a.values.numel() or not b.values.numel():
        none = torch.full(a.values.shape[:2], -torch.inf, device=rows.device)
        return Neighbours(torch.zeros_like(none).long(), none, torch.zeros_like(none).bool())
    if ratio is None:
        found: list[tuple[Tensor, ...]] = []
        largest = None
        for cosines in _strips(a, b):
            found.append(cosines.max(2))
            here = cosines.amax(1)
            largest = here if largest is None else torch.maximum(largest, here)
        scores, nearest = _join(found)
        assert largest is not None
        mutual = scores == largest.gather(1, nearest)
        # Where several are equally near to one of B, the first is its nearest.
        first = nearest.new_full((nearest.shape[0], m), n)
        first.scatter_reduce_(1, nearest, torch.where(mutual, rows, n), "amin")
        kept = first.gather(1, nearest) == rows
    else:
        nearest, scores, second = _nearest_two(a, b, radius)
        back, score_b, second_b = _nearest_two(b, a, radius)
        kept = (back.gather(1, nearest) == rows) & _is_distinct(scores, second, ratio)
        kept &= _is_distinct(score_b, second_b, ratio).gather(1, nearest)
    if min_score is not None or a.present is not None or b.present is not None:
        kept &= scores >= (-1.5 if min_score is None else min_score)
    return Neighbours(nearest, scores.clamp(-1, 1), kept)


def _nearest_two(a: Vectors, b: Vectors, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Find the nearest of B, its cosine, and the second's; shape (B, N) each."""
    if not a.values.numel() or not b.values.numel():
        none = torch.full(a.values.shape[:2], -torch.inf, device=a.values.device)
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
    nearest, first, second = _join(found)
    return nearest, first, second


def _join(found: Sequence[tuple[Tensor, ...]]) -> Iterable[Tensor]:
    """Join what was found in each strip."""
    if len(found) == 1:
        return found[0]
    return (torch.cat(parts, 1) for parts in zip(*found, strict=True))


def _is_distinct(first: Tensor, second: Tensor, ratio: float) -> Tensor:
    nearest, other = (2 - 2 * cosines for cosines in (first, second))
    return other.isfinite() & (other > _INDISTINCT) & (nearest <= ratio**2 * other)


def _strips(a: Vectors, b: Vectors) -> Iterator[Tensor]:
    """Yield cosines (B, some, M) of some rows of A with all of B, -inf for what is absent."""
    held = STRIP.get(a.values.device.type, STRIP["cuda"])
    if b.points is not None:
        held *= 2  # each strip takes more operations
    rows = max(1, held // (b.values.shape[0] * b.values.shape[1]))
    columns = b.values.transpose(1, 2)
    penalty_a, penalty_b = (
        None if each.present is None else torch.where(each.present, 0.0, -torch.inf)
        for each in (a, b)
    )
    for start in range(0, a.values.shape[1], rows):
        some = slice(start, start + rows)
        cosines = torch.bmm(a.values[:, some], columns)
        if penalty_b is not None:
            cosines += penalty_b[:, None]
        if penalty_a is not None:
            cosines += penalty_a[:, some, None]
        yield cosines


def _normalise(*sides: Vectors) -> list[Vectors]:
    """Normalise descriptors to length 1; zero vectors, which have no direction, are excluded.

    Raises:
        InvalidArgumentError: different widths or devices, or a value is not finite.
    """
    a, b = (side.values for side in sides)
    check_comparable(a, b, axis=2)
    if not a.numel() or not b.numel():
        return list(sides)
    lengths = [_lengths(values.float()) for values in (a, b)]
    shortest, longest = torch.stack(torch.aminmax(torch.cat(lengths, 1))).tolist()
    if a.dtype == b.dtype == torch.float32 and shortest > 1 - _UNIT and longest < 1 + _UNIT:
        return list(sides)
    if shortest > _SHORT and longest < _LONG:
        return [
            Vectors(side.values.float() / each, side.present, side.points)
            for side, each in zip(sides, lengths, strict=True)
        ]
    return [_normalise_any(side, name) for side, name in zip(sides, "ab", strict=True)]


def _lengths(values: Tensor) -> Tensor:
    if values.stride(2) == 1:
        lengths: Tensor = torch.linalg.vector_norm(values, dim=2, keepdim=True)
        return lengths
    # Several times as fast as vector_norm where tokens are stored channel by channel.
    return values.square().sum(2, keepdim=True).sqrt_()


def _normalise_any(side: Vectors, name: str) -> Vectors:
    """Normalise descriptors some of which are zero, or beyond what float32 can square."""
    values, tiny = side.values.float(), torch.finfo(torch.float32).tiny
    peak = values.abs().amax(2, keepdim=True)
    check_finite(peak, f"descriptors_{name}")
    values = values / peak.clamp_min(tiny)
    values /= torch.linalg.vector_norm(values, dim=2, keepdim=True).clamp_min_(1)
    there = peak[..., 0] > tiny
    return Vectors(values, there if side.present is None else side.present & there, side.points)


def check_limits(min_score: float | None, ratio: float | None, radius: float) -> None:
    """Raise InvalidArgumentError unless the numbers of a test are in range."""
    if min_score is not None:
        check_number("min_score", min_score, "[-1, 1]")
    if ratio is not None:
        check_number("ratio", ratio, "(0, 1]")
    check_number("radius", radius, "[0, inf]")


def _read(
    name: str, descriptors: Tensor, mask: Tensor | None = None, points: Tensor | None = None
) -> Vectors:
    """Check one set of descriptors, and give it the axis B = 1."""
    check_tensor(descriptors, f"descriptors_{name}", "(N, D)" if name == "a" else "(M, D)")
    count = descriptors.shape[0]  # for a tensor several times as fast as len
    if mask is not None:
        check_tensor(mask, f"mask_{name}", f"({count},)")
        if mask.dtype != torch.bool:
            raise InvalidArgumentError(f"mask_{name} must be bool, got {mask.dtype}")
        mask = mask[None].to(descriptors.device)
    if points is not None:
        check_tensor(points, f"points_{name}", f"({count}, 2)")
        points = points.to(descriptors.device, torch.float32)[None]
    return Vectors(descriptors[None], mask, points)
