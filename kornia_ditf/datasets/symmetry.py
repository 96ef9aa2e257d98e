"""Which keypoints change places in a mirror image: the left and right ones of published sets.

Numbers are those of the annotations. Source: the annotations of SPair-71k and AP-10K as
GeoAware-SC (Zhang et al., CVPR 2024) reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

Sides = tuple[tuple[int, int], ...]


def _runs(*starts: int) -> Sides:
    """Pair each number with the next one."""
    return tuple((start, start + 1) for start in starts)


_CAT = _runs(0, 2, 4, 6, 9, 11)
_COW = (*_CAT, *_runs(15, 17, 19))
_CAR = ((10, 20), (11, 21), (12, 22), (13, 23), (14, 24), (15, 25), *_runs(16, 18, 26, 28))

SPAIR: Mapping[str, Sides] = {
    "aeroplane": _runs(4, 6, 8, 10, 12, 14, 16, 18, 20),
    "bicycle": _runs(2, 6, 9),
    "bird": _runs(1, 4, 7, 10, 12, 14),
    "boat": _runs(1, 3, 5, 7, 9, 11),
    "bottle": _runs(0, 2, 4, 6, 8),
    "bus": (*_runs(0, 2, 5), *_CAR),
    "car": (*_runs(0, 2, 6), *_CAR),
    "cat": _CAT,
    "chair": _runs(0, 2, 4, 6, 8, 10, 12),
    "cow": _COW,
    "dog": _runs(0, 2, 4, 9, 11),
    "horse": _runs(0, 2, 4, 6, 10, 12, 16, 18),
    "motorbike": _runs(0, 2),
    "person": _runs(0, 2, 8, 10, 12, 14, 16, 18),
    "pottedplant": ((0, 2), (4, 5), (6, 8)),
    "sheep": _COW,
    "train": _runs(0, 2, 4, 6, 8, 10, 12, 14, 16),
    "tvmonitor": ((0, 2), (3, 7), (4, 6), (8, 10), (11, 15), (12, 14)),
}
AP10K: Sides = ((0, 1), (5, 8), (6, 9), (7, 10), (11, 14), (12, 15), (13, 16))


def partners(sides: Iterable[tuple[int, int]], numbers: Sequence[int]) -> Tensor:
    """Return `Pair.partners` of points.

    Args:
        sides: numbers of points that change places.
        numbers: of the points that are annotated.

    Example:
        >>> partners([(0, 1), (4, 5)], [1, 0, 2, 4])
        tensor([ 1,  0,  2, -1])
    """
    other = {one: two for pair in sides for one, two in (pair, pair[::-1])}
    place = {number: index for index, number in enumerate(numbers)}
    return torch.tensor([place.get(other.get(n, n), -1) for n in numbers], dtype=torch.int64)
