"""One list of keypoints per image, from matches that were found pair by pair.

A dense matcher gives other points in every pair, so that no point of an image is in two pairs and
no track grows beyond two images. Points that lie in one cell of a grid become one keypoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.sfm.graph import CorrespondenceGraph, ImagePair, ViewedImage
from kornia_ditf.types import Matches


def merge_keypoints(
    images: Sequence[ViewedImage],
    pairs: Sequence[tuple[int, int, Matches, Tensor]],
    *,
    cell: float | Sequence[float],
) -> CorrespondenceGraph:
    """Merge the points of many pairs into one list of keypoints per image.

    Args:
        images: whose keypoints are not known yet.
        pairs: numbers of two images, their matches, and which of those are inliers, bool (K,).
        cell: side of the grid's cells in pixels: points of one cell are one keypoint, at the mean
            of their positions. 0 merges equal points alone, as sparse features have them. Or one
            for each image.

    Returns:
        the images with their keypoints, and each pair's matches as numbers of keypoints. In a pair
        each keypoint has one partner, that of the highest score.

    Raises:
        InvalidArgumentError: `cell` is negative, or a pair names no image.

    Example:
        >>> images = [ViewedImage(name, (32, 32)) for name in "abc"]
        >>> ab = Matches(torch.tensor([[4.0, 4.0]]), torch.tensor([[9.0, 9.0]]), torch.ones(1))
        >>> bc = Matches(torch.tensor([[9.5, 9.0]]), torch.tensor([[6.0, 6.0]]), torch.ones(1))
        >>> kept = torch.ones(1, dtype=torch.bool)
        >>> graph = merge_keypoints(images, [(0, 1, ab, kept), (1, 2, bc, kept)], cell=4)
        >>> graph.images[1].keypoints, graph.track_lengths()
        (tensor([[9.2500, 9.0000]]), tensor([3]))
    """
    sides = [float(cell)] * len(images) if isinstance(cell, int | float) else list(cell)
    if len(sides) != len(images) or not all(side >= 0 for side in sides):
        raise InvalidArgumentError(f"cell must be 0 or more pixels, got {cell!r}")
    points: list[list[Tensor]] = [[] for _ in images]
    for first, second, matches, _ in pairs:
        if not 0 <= first < len(images) or not 0 <= second < len(images) or first == second:
            raise InvalidArgumentError(
                f"pairs must name two of {len(images)} images, got {first} and {second}"
            )
        points[first].append(matches.points_a.detach().cpu())
        points[second].append(matches.points_b.detach().cpu())
    merged, numbers = [], []
    for image, found, side in zip(images, points, sides, strict=True):
        keypoints, which = _merge(torch.cat([torch.zeros(0, 2), *found]), side)
        merged.append(ViewedImage(image.name, image.size, keypoints))
        numbers.append(iter(torch.split(which, [len(each) for each in found])))
    return CorrespondenceGraph(
        tuple(merged),
        tuple(
            _one_to_one(first, second, next(numbers[first]), next(numbers[second]), matches, kept)
            for first, second, matches, kept in pairs
        ),
    )


def _merge(points: Tensor, cell: float) -> tuple[Tensor, Tensor]:
    """Merge points (P, 2): keypoints (N, 2), row by row, and the number of each point's."""
    if not len(points):
        return points.float(), torch.zeros(0, dtype=torch.int64)
    places = ((points.double() + 0.5) / cell).floor() if cell else points.double()
    _, which = torch.unique(places.flip(1), dim=0, return_inverse=True)
    counts = torch.bincount(which)
    sums = torch.zeros(len(counts), 2, dtype=torch.float64)
    sums.index_add_(0, which, points.double())
    return (sums / counts[:, None]).float(), which


def _one_to_one(
    first: int, second: int, a: Tensor, b: Tensor, matches: Matches, kept: Tensor
) -> ImagePair:
    """Keep the best match of each keypoint."""
    order = matches.scores.cpu().argsort(descending=True, stable=True)
    # The best comes first, so that a match is kept where it is the first of both its keypoints.
    chosen = order[_is_first(a[order]) & _is_first(b[order])].sort().values
    indices = torch.stack([a[chosen], b[chosen]], 1)
    return ImagePair(first, second, indices, matches.scores.cpu()[chosen], kept.cpu()[chosen])


def _is_first(values: Tensor) -> Tensor:
    rows = torch.arange(len(values))
    first = torch.full((int(values.max()) + 1 if len(values) else 0,), len(values))
    first.scatter_reduce_(0, values, rows, "amin")
    return first[values] == rows
