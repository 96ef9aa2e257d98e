"""Correspondences between images, from the mutual nearest tokens of their descriptor maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import overload

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_comparable, check_one_image, full_precision
from kornia_ditf.matching.joint import PCA, check_pca, reduce_pair
from kornia_ditf.matching.nearest import STRIP, Vectors, check_limits, find_mutual
from kornia_ditf.types import DescriptorMap, Matches
from kornia_ditf.types.frame import grid_centres

Maps = DescriptorMap | Sequence[DescriptorMap]
Masks = Tensor | Sequence[Tensor | None] | None


@overload
def match(  # type: ignore[overload-overlap]
    map_a: DescriptorMap,
    map_b: DescriptorMap,
    *,
    min_score: float | None = ...,
    ratio: float | None = ...,
    radius: float = ...,
    mask_a: Masks = ...,
    mask_b: Masks = ...,
    pca: PCA = ...,
) -> Matches: ...
@overload
def match(
    map_a: Maps,
    map_b: Maps,
    *,
    min_score: float | None = ...,
    ratio: float | None = ...,
    radius: float = ...,
    mask_a: Masks = ...,
    mask_b: Masks = ...,
    pca: PCA = ...,
) -> list[Matches]: ...
def match(
    map_a: Maps,
    map_b: Maps,
    *,
    min_score: float | None = None,
    ratio: float | None = None,
    radius: float = 0.0,
    mask_a: Masks = None,
    mask_b: Masks = None,
    pca: PCA = 0,
) -> Matches | list[Matches]:
    """Match the mutual nearest tokens of two images, or of many pairs of images.

    Args:
        map_a: descriptors of one image, of a batch of images, or a list of maps of one image each.
        map_b: the same for the other images; grids and image sizes may differ. A map of one image
            is matched with each image of the other side.
        min_score: discard matches of a lower cosine, in [-1, 1].
        ratio: discard matches unless their distance is at most `ratio` times that to the second
            nearest, in (0, 1]; see `mutual_nearest`.
        radius: pixels around the nearest in which no second is sought, at least 0.
        mask_a: which pixels of A are matched, bool, shape (H, W): tokens are matched whose centres
            it holds. All by default. For several pairs, a list with a mask or None for each.
        mask_b: the same for B.
        pca: first reduce the tokens of each pair together to this number of components, or each of
            the maps' parts to its own number; see `joint_pca`. 0 reduces nothing.

    Returns:
        the tokens' centres in pixels of the two images, best first; no token is in two matches.
        For lists and batches a list with one result per pair. (A type checker takes two maps for
        one pair: write `list(batch)` to tell it otherwise.)

    Raises:
        InvalidArgumentError: sides of different lengths, different widths or devices, values that
            are not finite, a mask of another size, or a number out of range.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> a = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), Frame((32, 32), (32, 32)))
        >>> b = DescriptorMap(a.data.flip(3), Frame((64, 64), (64, 64)))
        >>> match(a, b).points_b
        tensor([[47.5000, 15.5000],
                [15.5000, 15.5000],
                [47.5000, 47.5000],
                [15.5000, 47.5000]])
        >>> [len(matches) for matches in match(a, [a, b])]
        [4, 4]
    """
    check_limits(min_score, ratio, radius)
    sides = [_one_by_one(map_a, "map_a"), _one_by_one(map_b, "map_b")]
    count = max(map(len, sides)) if all(sides) else 0
    for index, maps in enumerate(sides):
        if len(maps) not in (1, count):
            raise InvalidArgumentError(
                "map_a and map_b must hold the same number of images, or one of them one image, "
                f"got {len(sides[0])} and {len(sides[1])}"
            )
        sides[index] = maps * count if len(maps) == 1 else maps
    masks = [_one_each(mask_a, count, "mask_a"), _one_each(mask_b, count, "mask_b")]
    pca = check_pca(pca)
    pairs = [(*reduce_pair(a, b, pca), *both) for a, b, *both in zip(*sides, *masks, strict=True)]
    found: list[Matches] = []
    # Pairs of equal shapes are matched together, as many as a CPU's cache holds or fill a GPU.
    for shapes, group in groupby(pairs, key=lambda pair: (pair[0].data.shape, pair[1].data.shape)):
        alike = list(group)
        held = _TOGETHER.get(alike[0][0].data.device.type, STRIP["cuda"])
        n, m = (math.prod(shape[2:]) for shape in shapes)
        some = max(1, held // (n * m + (n + m) * shapes[0][1]))
        for start in range(0, len(alike), some):
            found += _match_alike(alike[start : start + some], min_score, ratio, radius)
    single = isinstance(map_a, DescriptorMap) and isinstance(map_b, DescriptorMap) and count == 1
    return found[0] if single else found


_TOGETHER = {"cpu": 1 << 18}
"""Numbers, descriptors and cosines, of several pairs that are computed together."""

_Pair = tuple[DescriptorMap, DescriptorMap, Tensor | None, Tensor | None]


def _match_alike(
    pairs: Sequence[_Pair], min_score: float | None, ratio: float | None, radius: float
) -> list[Matches]:
    """Match pairs whose grids have the same shapes."""
    maps_a, maps_b, masks_a, masks_b = zip(*pairs, strict=True)
    for a, b in zip(maps_a, maps_b, strict=True):
        check_comparable(a.data, b.data)
    with full_precision(maps_a[0].data.device):
        points_a, a = _read(maps_a, masks_a, "mask_a", radius)
        points_b, b = _read(maps_b, masks_b, "mask_b", radius)
        found = find_mutual(a, b, min_score=min_score, ratio=ratio, radius=radius)
        scores, order = torch.where(found.kept, found.scores, -torch.inf).sort(
            dim=1, descending=True, stable=True
        )
        matches = []
        for pair, count in enumerate(found.kept.sum(1).tolist()):
            rows = order[pair, :count]
            nearest = found.nearest[pair].take(rows)
            points = (points_a[pair].index_select(0, rows), points_b[pair].index_select(0, nearest))
            matches.append(Matches(*points, scores[pair, :count]))
    return matches


def _read(
    maps: Sequence[DescriptorMap], masks: Sequence[Tensor | None], name: str, radius: float
) -> tuple[list[Tensor], Vectors]:
    """Return the tokens' centres, B of (N, 2), and the tokens that their masks hold as vectors."""
    device, grid = maps[0].data.device, maps[0].grid
    centres = [_centres(one.frame.image_size, grid).to(device) for one in maps]
    for one in maps:
        one.check()
    data = torch.cat([one.data for one in maps]) if len(maps) > 1 else maps[0].data
    held = None
    if any(mask is not None for mask in masks):
        held = torch.stack(
            [_mask_tokens(*each, name) for each in zip(maps, centres, masks, strict=True)]
        )
    points = torch.stack(centres) if radius else None
    return centres, Vectors(data.flatten(2).transpose(1, 2), held, points)


@lru_cache(maxsize=64)
def _centres(size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    return grid_centres(size, grid).float()


def _mask_tokens(one: DescriptorMap, centres: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """Read a mask at the pixels of the tokens' centres, shape (N,)."""
    size = one.frame.image_size
    if mask is None:
        return torch.ones(len(centres), dtype=torch.bool, device=centres.device)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != size:
        got = f"{mask.dtype} of {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask)
        raise InvalidArgumentError(f"{name} must be bool of its image's size {size}, got {got}")
    x, y = (centres + 0.5).long().unbind(1)
    return mask.to(centres.device)[y, x]


def _one_by_one(maps: Maps, name: str) -> list[DescriptorMap]:
    """Split a batch into maps of one image each, or check a list of them."""
    if isinstance(maps, DescriptorMap):
        return [maps] if len(maps) == 1 else list(maps)
    for index, one in enumerate(maps):
        if not isinstance(one, DescriptorMap):
            raise InvalidArgumentError(
                f"{name} must hold DescriptorMaps, got {type(one).__name__} at index {index}"
            )
        check_one_image(one, f"{name}[{index}]")
    return list(maps)


def _one_each(mask: Masks, count: int, name: str) -> list[Tensor | None]:
    if mask is None or isinstance(mask, Tensor):
        return [mask] * count
    if len(mask) != count:
        raise InvalidArgumentError(f"{name} must hold {count} masks, one per pair, got {len(mask)}")
    return list(mask)
