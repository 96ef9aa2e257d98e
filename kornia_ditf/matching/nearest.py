"""Descriptors of two images in; those that are each other's nearest out, exactly, in small memory.

Cosines are computed tile by tile with a product that may be short (`coarse`). Each tells which
others can still be a vector's nearest: those whose cosine, given the bound of its error, reaches
the best one. Nearly always one remains; where more do, float64 decides. So the result does not
depend on the precision, the size of the tiles or the device: it is what the cosines in float64,
rounded to float32, say, and of equals the first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.certified import (
    Precision,
    Short,
    bound,
    choose_precision,
    multiply,
    shorten,
)
from kornia_ditf.matching.checks import check_comparable, check_tensor, full_precision

_TILES = {"cpu": (512, 1024), "cuda": (4096, 8192)}
"""Rows of A and of B that are multiplied at one time."""

_BLOCK = 6 << 20
"""Bytes of short vectors of B that are held at one time, while all of A passes by."""

_SMALL = 64
"""So many vectors in float64 stay in the processor's cache."""

_GROUP = 16
"""Of so many cosines only the largest is looked at first."""

_DENSE = 32
"""Where more than one in so many cosines could be the best, a tile is computed in float64."""

_CANDIDATES = 1 << 17
"""So many are held before they are decided."""

_ROUNDED = 2.0**-20
"""More than what a cosine in float64, rounded to float32, can be wrong by."""


def mutual_nearest(
    descriptors_a: Tensor,
    descriptors_b: Tensor,
    *,
    min_score: float | None = None,
    ratio: float | None = None,
    mask_a: Tensor | None = None,
    mask_b: Tensor | None = None,
    precision: Precision = "auto",
) -> tuple[Tensor, Tensor]:
    """Find the pairs that are each other's nearest by cosine.

    The same pairs as from the argmax of the whole matrix of cosines along both axes, which is
    never held; no descriptor is in two pairs. Where several are equally near (in float32), the
    first is nearest. Zero vectors have no direction and are left out.

    Args:
        descriptors_a: shape (N, D), of any length each; N may be 0.
        descriptors_b: shape (M, D); M may be 0.
        min_score: leave out pairs of a lower cosine, in [-1, 1].
        ratio: leave out pairs unless the distance of their unit vectors is at most so many times
            that to the second nearest, on both sides (Lowe; as `kornia.feature.match_smnn`), in
            (0, 1]. Where there is no second, or it is as near, nothing can be told apart and the
            pair is left out.
        mask_a: which descriptors of A take part, bool, shape (N,); all by default.
        mask_b: the same of B, shape (M,).
        precision: of the first, coarse products: `float32`, `bfloat16`, or `auto`, the faster as
            measured once per process. It changes the time, never the result;
            `kornia_ditf.matching.certified` derives why.

    Returns:
        pairs of row numbers (a, b), int64, shape (K, 2), in ascending order of a; and their
        cosines, float32, shape (K,).

    Raises:
        InvalidArgumentError: a wrong shape or value, different widths or devices, or values not
            finite.

    Example:
        >>> indices, scores = mutual_nearest(torch.eye(3), 5 * torch.eye(3)[[2, 0]])
        >>> indices
        tensor([[0, 1],
                [2, 0]])
        >>> scores
        tensor([1., 1.])
    """
    check_tensor(descriptors_a, "descriptors_a", "(N, D)")
    check_tensor(descriptors_b, "descriptors_b", "(M, D)")
    check_comparable(descriptors_a, descriptors_b, descriptors_a.shape[1], descriptors_b.shape[1])
    if min_score is not None and not -1 <= min_score <= 1:
        raise InvalidArgumentError(f"min_score must lie in [-1, 1], got {min_score}")
    if ratio is not None and not 0 < ratio <= 1:
        raise InvalidArgumentError(f"ratio must lie in (0, 1], got {ratio}")
    device = descriptors_a.device
    precision = choose_precision(precision, descriptors_a.numel() * len(descriptors_b), device)
    count = 1 if ratio is None else 2
    with full_precision(device):
        side_a = _Side(descriptors_a, mask_a, "a", count)
        side_b = _Side(descriptors_b, mask_b, "b", count)
        _compare(side_a, side_b, precision)
        if not len(side_a.rows) or not len(side_b.rows):
            return torch.empty(0, 2, dtype=torch.int64, device=device), torch.empty(
                0, device=device
            )
        a, b, cosines = _possible_pairs(side_a, side_b)
        by_b = b.argsort(stable=True)
        nearest_a, best_a = side_a.decide(side_b, (a, b, cosines))
        nearest_b, best_b = side_b.decide(side_a, (b[by_b], a[by_b], cosines[by_b]))
        mutual = (nearest_a[a, 0] == b) & (nearest_b[b, 0] == a)
        a, b, scores = a[mutual], b[mutual], cosines[mutual].float().clamp(-1, 1)
        keep = torch.ones_like(a, dtype=torch.bool)
        if min_score is not None:
            keep &= scores >= min_score
        if ratio is not None:
            keep &= _is_distinct(best_a[a], ratio) & _is_distinct(best_b[b], ratio)
        indices = torch.stack([side_a.rows[a[keep]], side_b.rows[b[keep]]], 1)
        return indices, scores[keep]


class _Side:
    """One image's descriptors, shape (N, D), and which of the other's may be nearest to each."""

    def __init__(self, descriptors: Tensor, mask: Tensor | None, name: str, count: int) -> None:
        # In float64 no square overflows or vanishes; in pieces, for that is a copy. Results are
        # written in place: small tensors kept between large ones would scatter the memory.
        lengths = torch.empty(len(descriptors), dtype=torch.float64, device=descriptors.device)
        for into, some in zip(
            torch.split(lengths, _SMALL), torch.split(descriptors, _SMALL), strict=True
        ):
            into.copy_(torch.linalg.vector_norm(some.double(), dim=1))
        if not bool((lengths <= torch.finfo(torch.float32).max).all()):
            raise InvalidArgumentError(
                f"descriptors_{name} must be finite, got NaN or infinity among them"
            )
        present = lengths > torch.finfo(torch.float32).tiny
        if mask is not None:
            check_tensor(mask, f"mask_{name}", "(N,)")
            if mask.dtype != torch.bool or mask.shape != lengths.shape:
                raise InvalidArgumentError(
                    f"mask_{name} must be bool of shape ({len(lengths)},), "
                    f"got {mask.dtype} of {tuple(mask.shape)}"
                )
            present &= mask.to(present.device)
        self.descriptors = descriptors
        self.rows = present.nonzero().flatten()
        self.lengths = lengths[self.rows]
        # What the best `count` cosines of each are at least, so far.
        self.least = torch.full((len(self.rows), count), -torch.inf, device=lengths.device)
        room = 2 * max(_CANDIDATES, 2 * count * len(self.rows))
        self._candidates = tuple(
            torch.empty(room, dtype=dtype, device=lengths.device)
            for dtype in (torch.int32, torch.int32, torch.float32)
        )
        self._held = 0

    def units(self, part: slice, dtype: torch.dtype) -> Tensor:
        """Give some descriptors with unit length."""
        return self._rows(part).to(dtype) / self.lengths[part, None].to(dtype)

    def short(self, part: slice, precision: Precision) -> Short:
        """Give some descriptors as they are multiplied."""
        return shorten(self._rows(part), self.lengths[part], precision)

    def _rows(self, part: slice) -> Tensor:
        whole = len(self.rows) == len(self.descriptors)
        return self.descriptors[part] if whole else self.descriptors[self.rows[part]]

    def least_with(self, first: int, cosines: Tensor) -> Tensor:
        """Give what the best of some are at least, given some more that they have at least."""
        known, count = self.least[first : first + len(cosines)], self.least.shape[1]
        best = cosines.amax(1, keepdim=True) if count == 1 else cosines
        return torch.cat([known, best], 1).topk(count, 1).values

    def add(self, row: Tensor, other: Tensor, most: Tensor, others: _Side) -> None:
        """Note candidates: rows, which others they may be nearest to, and cosines at most."""
        if self._held + len(row) > len(self._candidates[0]):
            self._forget()
            if self._held + len(row) > len(self._candidates[0]):
                self._settle(others)
        for held, value in zip(self._candidates, (row, other, most), strict=True):
            held[self._held : self._held + len(row)] = value
        self._held += len(row)

    def candidates(self) -> tuple[Tensor, Tensor]:
        """Give rows, and which others may be nearest to them by all that is known by now."""
        self._forget()
        row, other, _ = self._candidates
        return row[: self._held].long(), other[: self._held].long()

    def _forget(self) -> None:
        """Drop the candidates that are none any more."""
        row, _, most = (held[: self._held] for held in self._candidates)
        possible = most >= self.least[row, -1]
        kept = [held[: self._held][possible] for held in self._candidates]
        self._held = len(kept[0])
        for held, value in zip(self._candidates, kept, strict=True):
            held[: self._held] = value

    def _settle(self, others: _Side) -> None:
        """Replace the candidates by the best of them."""
        row, other = self.candidates()
        order = (row * len(others.rows) + other).argsort()
        row, other = row[order], other[order]
        nearest, cosines = self.decide(
            others, (row, other, _exact_cosines(self, row, others, other))
        )
        row = torch.arange(len(self.rows), device=row.device)[:, None].expand_as(nearest)
        known = cosines > -torch.inf
        self._held = 0
        self.add(row[known], nearest[known], cosines[known].float() + _ROUNDED, others)

    def decide(self, others: _Side, pairs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Find the nearest of the others to some rows: which, and cosines, for all (n, count).

        A cosine is computed, in float64, only where it is not known and there is a choice, or
        where the second is wanted. Where there is none, it is -inf.

        Args:
            others: the other side.
            pairs: rows in question, others, and their cosines, sorted by row and other.
        """
        row, other = self.candidates()
        wanted = torch.zeros_like(self.rows, dtype=torch.bool)
        wanted[pairs[0]] = True
        row, other = row[wanted[row]], other[wanted[row]]
        count, whole = self.least.shape[1], len(others.rows)
        keys, key = pairs[0] * whole + pairs[1], row * whole + other
        place = torch.searchsorted(keys, key).clamp_max(len(keys) - 1)
        unknown = keys[place] != key
        exact = pairs[2][place]
        exact[unknown] = _exact_cosines(self, row[unknown], others, other[unknown])
        # Equal in float32 is equal.
        rounded = exact.float()
        nearest, cosines = [], []
        for _ in range(count):
            best = torch.full_like(self.least[:, 0], -torch.inf)
            best.scatter_reduce_(0, row, rounded, "amax")
            equal = (rounded == best[row]) & (rounded > -torch.inf)
            first = torch.full_like(self.rows, whole)
            first.scatter_reduce_(0, row[equal], other[equal], "amin")
            chosen = equal & (other == first[row])
            cosine = torch.full_like(best, -torch.inf, dtype=torch.float64)
            cosine[row[chosen]] = exact[chosen]
            rounded = rounded.masked_fill(chosen, -torch.inf)
            nearest.append(first)
            cosines.append(cosine)
        return torch.stack(nearest, 1), torch.stack(cosines, 1)


def _possible_pairs(side_a: _Side, side_b: _Side) -> tuple[Tensor, Tensor, Tensor]:
    """Give the pairs (a, b) of which each may be the other's nearest; their cosines, float64.

    These also show what the nearest has at least, so that few others remain to be compared.
    """
    (row_a, other_a), (row_b, other_b) = side_a.candidates(), side_b.candidates()
    m = len(side_b.rows)
    keys = row_a * m + other_a
    keys = keys[torch.isin(keys, other_b * m + row_b)].sort().values
    a, b = keys // m, keys % m
    cosines = _exact_cosines(side_a, a, side_b, b)
    for side, row in ((side_a, a), (side_b, b)):
        if side.least.shape[1] == 1:
            side.least[:, 0].scatter_reduce_(0, row, cosines.float() - _ROUNDED, "amax")
    return a, b, cosines


def _compare(side_a: _Side, side_b: _Side, precision: Precision) -> None:
    """Compare all with all, tile by tile."""
    device, width = side_a.descriptors.device, max(1, side_a.descriptors.shape[1])
    bytes_each = (2 if precision == "bfloat16" else 4) * width
    parts_a, parts_b = (
        _parts(len(side.rows), size)
        for side, size in zip((side_a, side_b), _TILES.get(device.type, _TILES["cpu"]), strict=True)
    )
    held = max(1, _BLOCK // (bytes_each * max(1, parts_b[0].stop))) if parts_b else 1
    shorts_a: dict[int, Short] = {}
    for start in range(0, len(parts_b), held):
        block_b = [(part, side_b.short(part, precision)) for part in parts_b[start : start + held]]
        # Tiles on the diagonal first: images that are compared show similar things at similar
        # places, and the sooner a good match is known, the fewer others are noted.
        for diagonal in (True, False):
            for part_a in parts_a:
                tiles = [
                    (part_b, short_b)
                    for part_b, short_b in block_b
                    if _overlap(part_a, parts_a[-1].stop, part_b, parts_b[-1].stop) == diagonal
                ]
                if not tiles:
                    continue
                short_a = shorts_a.get(part_a.start) or side_a.short(part_a, precision)
                if parts_a[-1].stop * bytes_each <= _BLOCK:
                    shorts_a[part_a.start] = short_a
                for part_b, short_b in tiles:
                    _note(side_a, part_a.start, short_a, side_b, part_b.start, short_b)


def _parts(whole: int, size: int) -> list[slice]:
    """Split a range into equal parts of at most about `size`, a multiple of the group."""
    size = -(-whole // max(1, round(whole / size)))
    size = max(_GROUP, -(-size // _GROUP) * _GROUP)
    return [slice(start, min(whole, start + size)) for start in range(0, whole, size)]


def _overlap(part_a: slice, n: int, part_b: slice, m: int) -> bool:
    """Tell whether parts of two ranges lie at the same relative place."""
    return bool(part_a.start * m < part_b.stop * n and part_b.start * n < part_a.stop * m)


def _note(side_a: _Side, first_a: int, a: Short, side_b: _Side, first_b: int, b: Short) -> None:
    tile = multiply(a, b)
    n, m = tile.shape
    if n % _GROUP or m % _GROUP:
        tile = F.pad(tile, (0, -m % _GROUP, 0, -n % _GROUP), value=-torch.inf)
    rows, columns = tile.shape
    # A group is spread over the tile, so that the maxima of neighbours are taken together.
    across = tile.view(rows, _GROUP, columns // _GROUP).amax(1)[:n]
    along = tile.view(_GROUP, rows // _GROUP, columns).amax(0).T[:m]
    margin_a, margin_b = bound(a, b)[:, None], bound(b, a)[:, None]
    least_a = side_a.least_with(first_a, across - margin_a)
    least_b = side_b.least_with(first_b, along - margin_b)
    found_a = _find(tile, across, least_a[:, -1:] - margin_a)
    found_b = _find(tile.T, along, least_b[:, -1:] - margin_b)
    if max(len(found_a[0]), len(found_b[0])) * _DENSE > n * m:
        _note_exactly(side_a, first_a, n, side_b, first_b, m)
        return
    for side, first, least, margin, others, shift, (row, other, values) in (
        (side_a, first_a, least_a, margin_a, side_b, first_b, found_a),
        (side_b, first_b, least_b, margin_b, side_a, first_a, found_b),
    ):
        side.least[first : first + len(least)] = least
        side.add(row + first, other + shift, values + margin[row, 0], others)


def _find(cosines: Tensor, groups: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find cosines that reach what each row asks for, by their groups' largest: rows, others."""
    row, group = (groups >= least).nonzero(as_tuple=True)
    spread = torch.arange(_GROUP, device=row.device) * (cosines.shape[1] // _GROUP)
    values = cosines[row[:, None], group[:, None] + spread]
    which, place = ((values >= least[row]) & (values > -torch.inf)).nonzero(as_tuple=True)
    return row[which], group[which] + spread[place], values[which, place]


def _note_exactly(side_a: _Side, first_a: int, n: int, side_b: _Side, first_b: int, m: int) -> None:
    """Compute a tile in float64 and note the best alone, where many are as good to any bound."""
    part_a, part_b = slice(first_a, first_a + n), slice(first_b, first_b + m)
    exact = side_a.units(part_a, torch.float64) @ side_b.units(part_b, torch.float64).T
    for side, first, cosines, others, shift in (
        (side_a, first_a, exact.float(), side_b, first_b),
        (side_b, first_b, exact.float().T, side_a, first_a),
    ):
        row = torch.arange(len(cosines), device=cosines.device)
        for _ in range(min(side.least.shape[1], cosines.shape[1])):
            best, other = cosines.max(1)
            least = side.least_with(first, best[:, None] - _ROUNDED)
            side.least[first : first + len(row)] = least
            side.add(row + first, other + shift, best + _ROUNDED, others)
            cosines.scatter_(1, other[:, None], -torch.inf)


def _exact_cosines(side_a: _Side, a: Tensor, side_b: _Side, b: Tensor) -> Tensor:
    """Compute single cosines in float64, shape (K,)."""
    cosines = side_a.lengths[a] * side_b.lengths[b]
    pieces = (torch.split(value, _SMALL) for value in (cosines, side_a.rows[a], side_b.rows[b]))
    for into, row_a, row_b in zip(*pieces, strict=True):
        vector_a, vector_b = side_a.descriptors[row_a].double(), side_b.descriptors[row_b].double()
        into.copy_(torch.linalg.vecdot(vector_a, vector_b) / into)
    return cosines


def _is_distinct(cosines: Tensor, ratio: float) -> Tensor:
    """Tell where the nearest is so much nearer than the second, by distance of unit vectors."""
    squares = 2 - 2 * cosines.clamp_max(1)
    nearest, second = squares.unbind(1)
    # Below, a distance is what rounding makes of none.
    return second.isfinite() & (second > 1e-12) & (nearest <= ratio**2 * second)
