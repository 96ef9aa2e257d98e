"""What a search tries: turns and scales of image B, by name or as a list, and poses of image A."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import torch

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.poses import POSES, UPRIGHT, PoseSearch, instance_distance, view_in_pose
from kornia_ditf.matching.verification import Verification
from kornia_ditf.matching.views import View
from kornia_ditf.types import DescriptorMap, Matches
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


def choose_pose(
    descriptor: DenseDescriptor,
    view: View,
    maps: Sequence[DescriptorMap],
    prompt: str | None,
    pose: PoseSearch,
) -> tuple[View, DescriptorMap, dict[str, float]]:
    """Return the view of A that is nearest to B, its map, and the distance of every pose."""
    views = {name: view_in_pose(view, name) for name in POSES[pose]}
    found = {
        name: maps[0] if name == UPRIGHT else descriptor(each.image, prompt)
        for name, each in views.items()
    }
    distances = {name: instance_distance(each, maps[1]) for name, each in found.items()}
    best = min(distances, key=lambda name: distances[name])
    return views[best], found[best], distances


def from_pose(
    view: View, matches: Matches, verification: Verification
) -> tuple[Matches, Verification]:
    """Map matches and geometry of a view of A back to its own pixels."""
    matrix = verification.matrix
    if matrix is not None:
        matrix = matrix @ torch.from_numpy(view.matrix).to(matrix)
    matches, of_geometry = (
        replace(each, points_a=view.to_image(each.points_a))
        for each in (matches, verification.matches)
    )
    return matches, replace(verification, matrix=matrix, matches=of_geometry)
