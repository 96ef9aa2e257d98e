"""What a data set gives: pairs of images with points that correspond, read when asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, overload

import torch
from torch import Tensor

from kornia_ditf.errors import DatasetError

Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """Two images, and what is known of how they correspond; in pixels of the images as stored.

    Args:
        name: unique in its data set.
        category: what the pair counts under; one name for all pairs where the set has none.
        image_a: path of the image whose points are given.
        image_b: path of the image in which they are sought.
        size_a: height and width of image A.
        size_b: height and width of image B.
        points_a: (x, y) in A, shape (K, 2), float64. Where `homography` is given they are
            keypoints detected in A alone, and need not belong to those of B.
        points_b: (x, y) in B, shape (K, 2), float64; row i belongs to row i of points_a.
        visibility_a: of each point in A, shape (K,): 0 not annotated, 0.5 hidden, 1 visible.
        visibility_b: of each point in B, likewise.
        box_a: the object in A as left, top, right, bottom.
        box_b: the object in B.
        homography: takes points of A to B, shape (3, 3), float64.
        flow: a .flo file whose vectors take pixels of A to B; for data sets of plugins, and scored
            by no protocol here.
        label_a: what A shows, in words, for prompts; empty where nobody says.
        label_b: what B shows.
    """

    name: str
    category: str
    image_a: Path
    image_b: Path
    size_a: tuple[int, int]
    size_b: tuple[int, int]
    points_a: Tensor
    points_b: Tensor
    visibility_a: Tensor
    visibility_b: Tensor
    box_a: Box | None = None
    box_b: Box | None = None
    homography: Tensor | None = None
    flow: Path | None = None
    label_a: str = ""
    label_b: str = ""

    @property
    def visible(self) -> Tensor:
        """Which points are annotated in both images, shape (K,), bool; in A, if those differ."""
        if len(self.visibility_a) != len(self.visibility_b):
            return self.visibility_a > 0
        return (self.visibility_a > 0) & (self.visibility_b > 0)


class PairDataset(Sequence[Pair]):
    """A sequence of pairs; making it reads a list, and taking a pair reads that pair's files.

    Args:
        name: of the data set.
        root: the folder that holds it.
        split: which part of it this is.
    """

    def __init__(self, name: str, root: Path, split: str) -> None:
        self.name, self.root, self.split = name, root, split

    @property
    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """The names that pairs count under, sorted."""

    @abstractmethod
    def read(self, index: int) -> Pair:
        """Read one pair, index in [0, len).

        Raises:
            DatasetError: a file of it is missing or malformed.
        """

    def category(self, index: int) -> str:
        """Give what a pair counts under; without reading it, where the list says so."""
        return self.read(index).category

    def defects(self) -> Iterator[DatasetError]:
        """Name what is wrong with files that reading pairs does not touch."""
        return iter(())

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self.read(each) for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        return self.read(index % len(self))

    def __iter__(self) -> Iterator[Pair]:
        return (self.read(index) for index in range(len(self)))

    def images(self) -> dict[Path, str]:
        """List each image once, in the order of the pairs, with its label for prompts.

        Raises:
            DatasetError: a pair cannot be read.
        """
        found: dict[Path, str] = {}
        for pair in self:
            found.setdefault(pair.image_a, pair.label_a)
            found.setdefault(pair.image_b, pair.label_b)
        return found


def as_points(values: object, path: Path, what: str) -> Tensor:
    """Read points (x, y) into shape (K, 2), float64.

    Raises:
        DatasetError: they are no list of pairs of finite numbers.
    """
    try:
        points = torch.tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DatasetError(path, f"{what} must be a list of [x, y]") from error
    points = points.reshape(-1, 2) if points.numel() == 0 else points
    if points.ndim != 2 or points.shape[1] != 2 or not bool(torch.isfinite(points).all()):
        raise DatasetError(
            path, f"{what} must be a list of [x, y] in finite numbers, got {str(values)[:60]}"
        )
    return points


def as_box(values: object, path: Path, what: str) -> Box:
    """Read left, top, right, bottom.

    Raises:
        DatasetError: they are not four numbers, or the box has no area.
    """
    if isinstance(values, list) and len(values) == 4:
        left, top, right, bottom = (
            as_points([values[:2], values[2:]], path, what).flatten().tolist()
        )
        if right > left and bottom > top:
            return (left, top, right, bottom)
    raise DatasetError(path, f"{what} must be left, top, right, bottom, got {values}")


def existing_image(path: Path, how: str) -> Path:
    """Give a path back if a file is there.

    Raises:
        DatasetError: there is none.
    """
    if not path.is_file():
        raise DatasetError(path, f"there is no such image. {how}")
    return path
