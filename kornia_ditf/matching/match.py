"""Descriptors of two images in, correspondences in the pixels of each out, by cosine."""

from __future__ import annotations

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.certified import Precision
from kornia_ditf.matching.checks import check_one_image
from kornia_ditf.matching.keypoints import match_points, similarity_maps
from kornia_ditf.matching.nearest import mutual_nearest
from kornia_ditf.types import DescriptorMap, Matches

__all__ = ["match", "match_points", "mutual_nearest", "similarity_maps"]


def match(
    map_a: DescriptorMap,
    map_b: DescriptorMap,
    *,
    min_score: float | None = None,
    ratio: float | None = None,
    mask_a: Tensor | None = None,
    mask_b: Tensor | None = None,
    precision: Precision = "auto",
) -> Matches:
    """Match the mutually nearest tokens of two images.

    Args:
        map_a: one image's descriptors.
        map_b: the other's; grids and image sizes may differ.
        min_score: leave out matches of a lower cosine, in [-1, 1].
        ratio: leave out matches that are not so much nearer than the second nearest, in (0, 1];
            see `mutual_nearest`.
        mask_a: which pixels of A are matched, bool, shape (H, W): tokens whose centres they hold;
            all by default.
        mask_b: the same of B.
        precision: of the first products, which changes the time alone; see `mutual_nearest`.

    Returns:
        the tokens' centres in the pixels of the two images, best first. No token is in two
        matches.

    Raises:
        InvalidArgumentError: a map of several images, different widths or devices, values not
            finite, a mask of another size, or a number out of range.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> a = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), Frame((32, 32), (32, 32)))
        >>> b = DescriptorMap(a.data.flip(3), Frame((64, 64), (64, 64)))
        >>> match(a, b).points_b
        tensor([[47.5000, 15.5000],
                [15.5000, 15.5000],
                [47.5000, 47.5000],
                [15.5000, 47.5000]])
    """
    for name, descriptors in (("map_a", map_a), ("map_b", map_b)):
        check_one_image(descriptors, name)
    indices, scores = mutual_nearest(
        map_a.tokens[0],
        map_b.tokens[0],
        min_score=min_score,
        ratio=ratio,
        mask_a=_mask_tokens(map_a, mask_a, "mask_a"),
        mask_b=_mask_tokens(map_b, mask_b, "mask_b"),
        precision=precision,
    )
    a, b = indices.unbind(1)
    return Matches(map_a.centres()[a], map_b.centres()[b], scores).best(len(scores))


def _mask_tokens(descriptors: DescriptorMap, mask: Tensor | None, name: str) -> Tensor | None:
    """Look a mask up at the pixels that hold the tokens' centres."""
    if mask is None:
        return None
    size = descriptors.frame.image_size
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != size:
        got = f"{mask.dtype} of {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask)
        raise InvalidArgumentError(f"{name} must be bool of its image's size {size}, got {got}")
    x, y = (descriptors.centres() + 0.5).long().unbind(1)
    return mask.to(x.device)[y, x]
