"""Pose alignment: which mirrored or turned view of an image is nearest to another image.

Source: adaptive pose alignment of "Telling Left from Right" (Zhang et al., CVPR 2024), whose
released code compares an image and its mirror image; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_one_image
from kornia_ditf.matching.nearest import mutual_nearest, nearest_two
from kornia_ditf.matching.views import View
from kornia_ditf.types import DescriptorMap

PoseSearch = Literal["none", "flips", "turns", "both"]

UPRIGHT = "upright"
_TURNS = (UPRIGHT, "turned 90", "turned 180", "turned 270")
_MIRRORED = ("mirrored", *(f"mirrored, {turn}" for turn in _TURNS[1:]))

POSES: Mapping[str, tuple[str, ...]] = {
    "none": (UPRIGHT,),
    "flips": (UPRIGHT, "mirrored"),
    "turns": _TURNS,
    "both": (*_TURNS, *_MIRRORED),
}
"""Views of image A that are compared, the image as it is first; turns are counter-clockwise."""


def view_in_pose(view: View, pose: str) -> View:
    """Mirror and turn a view as the name of a pose says."""
    if pose.startswith("mirrored"):
        view = view.mirror()
    degrees = pose.rpartition("turned ")[2]
    return view.turn(float(degrees)) if degrees.isdecimal() else view


def instance_distance(
    map_a: DescriptorMap,
    map_b: DescriptorMap,
    *,
    mask_a: Tensor | None = None,
    mask_b: Tensor | None = None,
    mutual: bool = False,
) -> float:
    """Return the mean distance from the tokens of one image to the nearest tokens of another.

    Distances are Euclidean, between descriptors of unit length.

    Args:
        map_a: of one image, B = 1.
        map_b: of the other.
        mask_a: which tokens of A count, bool, shape (rows, columns), such as the foreground's; all
            by default.
        mask_b: among which tokens of B the nearest is sought, likewise.
        mutual: count mutual nearest tokens alone, as the source does where it has no masks.

    Raises:
        InvalidArgumentError: the maps are not of one image and one width, or a mask has another
            shape or holds no token.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> a = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), Frame((32, 32), (32, 32)))
        >>> instance_distance(a, a)
        0.0
    """
    tokens = []
    for name, one, mask in (("map_a", map_a, mask_a), ("map_b", map_b, mask_b)):
        check_one_image(one, name)
        found = one.tokens[0].detach()
        if mask is not None:
            if mask.dtype != torch.bool or tuple(mask.shape) != one.grid or not bool(mask.any()):
                raise InvalidArgumentError(
                    f"the mask of {name} must be bool of its grid {one.grid} and hold a token, got "
                    f"{mask.dtype} of {tuple(mask.shape)}"
                )
            found = found[mask.flatten().to(found.device)]
        tokens.append(found)
    a, b = tokens
    cosines = mutual_nearest(a, b)[1] if mutual else nearest_two(a, b)[1][:, 0]
    cosines = cosines.nan_to_num(neginf=0)  # a zero vector has no direction
    return float((2 - 2 * cosines.double()).clamp_min(0).sqrt().mean())
