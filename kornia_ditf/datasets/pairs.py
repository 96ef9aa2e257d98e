"""Image pairs with points that correspond, and the checks of what annotations say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.datasets.base import Dataset
from kornia_ditf.errors import DatasetError

Box: TypeAlias = tuple[float, float, float, float]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """Two images with their annotated points, boxes, homography or pose.

    Coordinates are pixels; of the images as stored for published data sets, and of the upright
    images (EXIF orientation applied) for `folder` and `synthetic`.

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
        visibility_b: the same for each point in B.
        box_a: the object in A as left, top, right, bottom.
        box_b: the object in B.
        homography: takes points of A to B, shape (3, 3), float64.
        camera_a: calibration matrix of A, shape (3, 3), float64.
        camera_b: calibration matrix of B.
        pose: takes points in the coordinates of camera A to those of camera B, shape (4, 4),
            float64; given together with both cameras.
        label_a: what A shows, in words, for prompts; empty where nobody says.
        label_b: what B shows.
        partners: of each point, the index of the one whose place it takes in a mirror image, such
            as the left eye for the right; its own where it has no side, and -1 where the other is
            not annotated, shape (K,), int64. None where points have no sides that are known.

    Raises:
        DatasetError: a number is not finite, a size, box or visibility out of range, the
            homography has no inverse, or a camera or the pose is none.
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
    camera_a: Tensor | None = None
    camera_b: Tensor | None = None
    pose: Tensor | None = None
    label_a: str = ""
    label_b: str = ""
    partners: Tensor | None = None

    def __post_init__(self) -> None:
        for side, image in (("a", self.image_a), ("b", self.image_b)):
            height, width = getattr(self, f"size_{side}")
            as_size(width, height, image, f"size_{side}")
            points, box = getattr(self, f"points_{side}"), getattr(self, f"box_{side}")
            as_points(points, image, f"points_{side}")
            seen = getattr(self, f"visibility_{side}")
            as_visibility(len(points), seen, image, f"visibility_{side}")
            if box is not None:
                as_box(box, image, f"box_{side}")
        if self.homography is not None:
            as_homography(self.homography, self.image_a, "homography")
        if self.pose is not None:
            as_pose(self.pose, self.image_a, "pose")
            as_camera(self.camera_a, self.image_a, "camera_a")
            as_camera(self.camera_b, self.image_b, "camera_b")

    @classmethod
    def of(
        cls,
        name: str,
        category: str,
        *,
        image: Sequence[Path],
        size: Sequence[tuple[int, int]],
        points: Sequence[Tensor],
        visibility: Sequence[Tensor] | None = None,
        **known: Any,
    ) -> Pair:
        """Create a pair from the annotations of A and B, each argument holding both.

        Args:
            name: unique in its data set.
            category: what the pair counts under.
            image: paths of A and B.
            size: their heights and widths.
            points: (x, y) in A and in B, shape (K, 2), float64.
            visibility: of the points, shape (K,); None where all are visible.
            known: `box`, `camera` and `label` of A and B; `homography` and `pose` as in `Pair`.
        """
        seen = visibility or [torch.ones(len(each), dtype=torch.float64) for each in points]
        both: dict[str, Sequence[Any]] = {"image": image, "size": size, "points": points}
        both["visibility"] = seen
        both |= {key: known.pop(key) for key in ("box", "camera", "label") if key in known}
        sides = {
            f"{key}_{side}": each
            for key, values in both.items()
            for side, each in zip("ab", values, strict=True)
        }
        return cls(name=name, category=category, **sides, **known)

    @property
    def visible(self) -> Tensor:
        """Which points are annotated in both images, shape (K,), bool; in A, if those differ."""
        if len(self.visibility_a) != len(self.visibility_b):
            return self.visibility_a > 0
        return (self.visibility_a > 0) & (self.visibility_b > 0)


class PairDataset(Dataset[Pair]):
    """A sequence of pairs; creating it reads a list, and accessing a pair reads that pair's files.

    Args:
        name: of the data set.
        root: the folder that holds it.
        split: which part of it this is.
        entries: what is known of each pair before its files are read.
    """

    def category(self, index: int) -> str:
        return self.read(index).category

    def images(self) -> dict[Path, str]:
        found: dict[Path, str] = {}
        for pair in self:
            found.setdefault(pair.image_a, pair.label_a)
            found.setdefault(pair.image_b, pair.label_b)
        return found


def spread(points: npt.NDArray[Any], moved: npt.NDArray[Any], most: int) -> list[Tensor]:
    """Return a limited number of rows of two arrays, evenly spread, as float64."""
    kept = np.linspace(0, len(points) - 1, min(most, len(points))).round().astype(int)
    return [torch.from_numpy(each[kept].astype(np.float64)) for each in (points, moved)]


def inside(points: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Whether points (x, y), shape (K, 2), lie in an image of a height and width."""
    return np.asarray(((points >= 0) & (points <= np.array(size[::-1]) - 1)).all(1))


def check_as_many(path: Path, where: str = "", **lists: Sized) -> None:
    """Raise DatasetError unless lists of an annotation, by their names in it, are equally long."""
    if len({len(each) for each in lists.values()}) > 1:
        counts = " for ".join(f"{len(each)} {name}" for name, each in lists.items())
        raise DatasetError(path, f"{where}it has {counts}, which must be as many")


# Each check takes values of an annotation, its file, and what the file calls them, and raises
# DatasetError unless they are sound.


def as_points(values: object, path: Path, what: str) -> Tensor:
    """Check a list of points (x, y) and return it in shape (K, 2), float64."""
    expected = f"{what} must be a list of [x, y] in finite numbers"
    points = _check(values, path, expected, lambda n: not n.numel() or n.shape == (len(n), 2))
    return points.reshape(-1, 2)


def as_box(values: object, path: Path, what: str) -> Box:
    """Check a box of left, top, right, bottom."""
    expected = f"{what} must be left, top, right, bottom of a box with an area"
    box = _check(values, path, expected, lambda n: n.shape == (4,) and bool((n[2:] > n[:2]).all()))
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom


def as_size(width: object, height: object, path: Path, what: str) -> tuple[int, int]:
    """Check the size of an image in pixels and return (height, width)."""
    for side in (width, height):
        if not isinstance(side, int) or isinstance(side, bool) or not 0 < side < _LONGEST:
            raise DatasetError(
                path, f"{what} must be width and height in pixels, got {width!r} and {height!r}"
            )
    return height, width  # type: ignore[return-value]


def as_visibility(count: int, values: object, path: Path, what: str) -> Tensor:
    """Check the visibilities of points, in [0, 1], and return them in shape (K,), float64."""
    expected = f"{what} must have one number for each point, from 0 (not annotated) to 1 (visible)"
    return _check(
        values,
        path,
        expected,
        lambda n: n.shape == (count,) and bool(((n >= 0) & (n <= 1)).all()),
    )


def as_homography(values: object, path: Path, what: str) -> Tensor:
    """Check a homography and return it in shape (3, 3), float64."""

    def invertible(matrix: Tensor) -> bool:
        # In units of 1000 pixels, in which the entries of sound ones are of similar magnitude.
        unit = matrix.new_tensor([1000.0, 1000.0, 1.0])
        scales = torch.linalg.svdvals(matrix / unit[:, None] * unit)
        return bool(scales[2] > _SINGULAR * scales[0])

    expected = f"{what} must be 3 x 3 finite numbers with an inverse"
    return _check(values, path, expected, lambda n: n.shape == (3, 3) and invertible(n))


def as_camera(values: object, path: Path, what: str) -> Tensor:
    """Check a calibration matrix, its focal lengths above 0, and return it in (3, 3), float64."""

    def calibrates(matrix: Tensor) -> bool:
        positive = bool(matrix[0, 0] > 0) and bool(matrix[1, 1] > 0)
        return positive and matrix[2].tolist() == [0, 0, 1] and not matrix[1, 0]

    expected = f"{what} must be a calibration matrix [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"
    return _check(values, path, expected, lambda n: n.shape == (3, 3) and calibrates(n))


def as_pose(values: object, path: Path, what: str) -> Tensor:
    """Check a rotation, up to 0.01, and a translation, and return them in (4, 4), float64."""

    def rigid(matrix: Tensor) -> bool:
        rotation, eye = matrix[:3, :3], torch.eye(4, dtype=torch.float64)
        error = float((rotation @ rotation.T - eye[:3, :3]).abs().max())
        moves = bool(matrix[:3, 3].any()) and torch.equal(matrix[3], eye[3])
        return moves and error < _NOT_RIGID and bool(torch.det(rotation) > 0)

    expected = f"{what} must be a rotation and a translation other than 0, shape (4, 4)"
    return _check(values, path, expected, lambda n: n.shape == (4, 4) and rigid(n))


_LONGEST = 1 << 31
_SINGULAR = 1e-9
_NOT_RIGID = 1e-2


def _check(values: object, path: Path, expected: str, sound: Callable[[Tensor], bool]) -> Tensor:
    with suppress(TypeError, ValueError, RuntimeError, OverflowError):
        numbers = torch.as_tensor(values, dtype=torch.float64)
        if bool(torch.isfinite(numbers).all()) and sound(numbers):
            return numbers
    raise DatasetError(path, f"{expected}, got {str(values)[:60]}")
