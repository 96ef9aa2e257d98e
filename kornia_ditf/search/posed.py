"""The view of an image that is nearest to another image, and matches of it taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.matching.poses import POSES, UPRIGHT, PoseSearch, instance_distance, view_in_pose
from kornia_ditf.matching.verification import Verification
from kornia_ditf.matching.views import View
from kornia_ditf.types import DescriptorMap, Matches


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
    """Take matches and geometry of a view of A back to its own pixels."""
    matrix = verification.matrix
    if matrix is not None:
        matrix = matrix @ torch.from_numpy(view.matrix).to(matrix)
    matches, of_geometry = (
        replace(each, points_a=view.to_image(each.points_a))
        for each in (matches, verification.matches)
    )
    return matches, replace(verification, matrix=matrix, matches=of_geometry)
