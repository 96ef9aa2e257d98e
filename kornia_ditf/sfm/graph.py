"""Images of a scene, their keypoints, and the matches between them: what exports are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.detection import first_at_position
from kornia_ditf.types import Matches
from kornia_ditf.utils.text import short_repr


@dataclass(frozen=True, slots=True, eq=False)
class ViewedImage:
    """An image and its keypoints.

    Args:
        name: its path in the folder of images, with `/` between folders.
        size: height and width in pixels, upright.
        keypoints: (x, y) in pixels, shape (N, 2); (0, 0) is the centre of the first pixel.
    """

    name: str
    size: tuple[int, int]
    keypoints: Tensor = field(default_factory=lambda: torch.zeros(0, 2))

    __repr__ = short_repr


@dataclass(frozen=True, slots=True, eq=False)
class ImagePair:
    """The matches of two images, as numbers of their keypoints.

    Args:
        first: number of image A.
        second: number of image B.
        indices: keypoints of A and B, int64, shape (K, 2).
        scores: shape (K,); higher is better.
        inliers: which agree with the geometry of the two views, bool, shape (K,).
    """

    first: int
    second: int
    indices: Tensor
    scores: Tensor
    inliers: Tensor

    __repr__ = short_repr


@dataclass(frozen=True, slots=True, eq=False)
class CorrespondenceGraph:
    """Images of a scene with their keypoints, and the pairs of images that were matched.

    Args:
        images: in the order of their names.
        pairs: each at most once.
    """

    images: tuple[ViewedImage, ...]
    pairs: tuple[ImagePair, ...]

    def __repr__(self) -> str:
        return (
            f"CorrespondenceGraph({len(self.images)} images, {len(self.pairs)} pairs, "
            f"{sum(len(each.keypoints) for each in self.images)} keypoints, "
            f"{sum(len(each.indices) for each in self.pairs)} matches)"
        )

    def matches(self, pair: int) -> Matches:
        """Return the matches of a pair by its number, in pixels of the two images."""
        each = self.pairs[pair]
        a, b = each.indices.unbind(1)
        first, second = self.images[each.first], self.images[each.second]
        return Matches(first.keypoints[a], second.keypoints[b], each.scores)

    def track_lengths(self) -> Tensor:
        """Return how many keypoints each track joins, longest first: inliers that are connected."""
        starts = [0]
        for image in self.images:
            starts.append(starts[-1] + len(image.keypoints))
        labels = torch.arange(starts[-1])
        edges = [
            each.indices[each.inliers] + torch.tensor([starts[each.first], starts[each.second]])
            for each in self.pairs
        ]
        if not edges:
            return labels[:0]
        a, b = torch.cat(edges).unbind(1)
        before = labels[:0]
        while not torch.equal(labels, before):  # until all have the smallest number of their track
            before, low = labels, torch.minimum(labels[a], labels[b])
            labels = labels.scatter_reduce(0, a, low, "amin").scatter_reduce(0, b, low, "amin")
            labels = labels[labels]
        lengths = torch.bincount(labels)
        return lengths[lengths > 1].sort(descending=True).values

    def save(
        self, path: str | Path, *, folder: str | Path | None = None, one_camera: bool = False
    ) -> list[Path]:
        """Write the graph for other tools, in the format that the file's name ends in.

        Args:
            path: `.db` for a COLMAP database, `.h5` for hloc, `.npz` or `.json`; see
                `docs/sfm.md`.
            folder: of the images: a COLMAP database then has the focal lengths of their EXIF.
            one_camera: whether in a COLMAP database images of one size share a camera.

        Returns:
            the files that were written: hloc's matches and pairs are files of their own.

        Raises:
            InvalidArgumentError: another suffix.
            MissingExtraError: `.db` needs pycolmap, `.h5` needs h5py.
            OutputError: a file cannot be written.
        """
        from kornia_ditf.sfm.formats import save_graph

        return save_graph(self, Path(path), None if folder is None else Path(folder), one_camera)

    @staticmethod
    def of_pair(
        names: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        matches: Matches,
        inliers: Tensor | None = None,
    ) -> CorrespondenceGraph:
        """Return the graph of two images and their matches."""
        kept = torch.ones(len(matches), dtype=torch.bool) if inliers is None else inliers
        images = [ViewedImage(*each) for each in zip(names, sizes, strict=True)]
        return merge_keypoints(images, [(0, 1, matches, kept)], cell=0)


def merge_keypoints(
    images: Sequence[ViewedImage],
    pairs: Sequence[tuple[int, int, Matches, Tensor]],
    *,
    cell: float | Sequence[float],
) -> CorrespondenceGraph:
    """Merge the points of many pairs into one list of keypoints per image.

    A dense matcher gives other points in every pair, so that no point of an image is in two pairs
    and no track grows beyond two images. Points in one cell of a grid become one keypoint.

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
    chosen = (
        order[first_at_position(a[order, None]) & first_at_position(b[order, None])].sort().values
    )
    indices = torch.stack([a[chosen], b[chosen]], 1)
    return ImagePair(first, second, indices, matches.scores.cpu()[chosen], kept.cpu()[chosen])
