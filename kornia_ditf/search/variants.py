"""The turns and scales that a search tries, by name or as a list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.checks import check_one_of

Kind = Literal["none", "scales", "turns", "both"]
Variant = tuple[float, float]
Search = Kind | Sequence[Variant]

_QUARTERS = [(1.0, 90.0), (1.0, 180.0), (1.0, 270.0)]
_DIAGONALS = [(1.0, 45.0), (1.0, 135.0), (1.0, 225.0), (1.0, 315.0)]
_VARIANTS: dict[Kind, list[Variant]] = {
    "none": [],
    "scales": [(1 / 2, 0.0), (2.0, 0.0), (1 / 3, 0.0), (3.0, 0.0)],
    "turns": [*_QUARTERS, *_DIAGONALS],
    "both": [
        *_QUARTERS,
        *((1 / 2, turn) for turn in (0.0, 90.0, 180.0, 270.0)),
        *((2.0, turn) for turn in (0.0, 90.0, 180.0, 270.0)),
        *_DIAGONALS,
        *((1 / 3, 0.0), (3.0, 0.0)),
    ],
}
"""Variants (scale, turn) of B in the order they are tried: the search ends with a sure one."""


def check_search(search: str) -> Kind:
    """Raise InvalidArgumentError unless a search of this name is known."""
    check_one_of("search", search, _VARIANTS)
    return cast("Kind", search)


def read_search(search: Search) -> list[Variant]:
    """Return the variants (scale, turn) of a search, or raise InvalidArgumentError."""
    if isinstance(search, str):
        return _VARIANTS[check_search(search)]
    variants = []
    for variant in search:
        try:
            scale, turn = (float(value) for value in variant)
        except (TypeError, ValueError):
            scale, turn = math.nan, math.nan
        if not 0.1 <= scale <= 10 or not math.isfinite(turn):
            raise InvalidArgumentError(
                "search must hold pairs (scale, turn), the scale in [0.1, 10] and the turn in "
                f"degrees, got {variant!r}"
            )
        variants.append((scale, turn))
    return variants
