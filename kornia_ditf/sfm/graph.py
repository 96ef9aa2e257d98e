"""Images of a scene, their keypoints, and the matches between them: what exports are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

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
        while True:  # until every keypoint has the smallest number of its track
            low = torch.minimum(labels[a], labels[b])
            spread = labels.scatter_reduce(0, a, low, "amin").scatter_reduce(0, b, low, "amin")
            spread = spread[spread]
            if torch.equal(spread, labels):
                break
            labels = spread
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
        from kornia_ditf.sfm.tracks import merge_keypoints

        kept = torch.ones(len(matches), dtype=torch.bool) if inliers is None else inliers
        images = [ViewedImage(*each) for each in zip(names, sizes, strict=True)]
        return merge_keypoints(images, [(0, 1, matches, kept)], cell=0)
