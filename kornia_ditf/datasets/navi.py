"""NAVI: views of scanned objects with cameras and depth, paired by angle (NeurIPS 2023).

The layout, the poses and the coding of depth are those of the README of google/navi and of
Probe3D's reader (mbanani/probe3d); no file of the set itself was at hand.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kornia_ditf.datasets.files import annotated_image, parse_json, path_inside, read_words, reading
from kornia_ditf.datasets.pairs import Floats, Pair, PairDataset, as_size, inside, spread
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError
from kornia_ditf.utils.checks import check_integer

_HOW = "Get navi_v1.5.tar.gz from https://github.com/google/navi and unpack it"
_LISTS = "custom_splits/pairwise_pixel_correspondences/pairs-{split}.txt"
_BIN = 30  # degrees
_NEAR = 20.0  # millimetres: a point is seen where its depth and that of the depth map agree
_DISPARITY = 10 * 65535  # what a depth map holds is this over the depth in millimetres


class _View(NamedTuple):
    image: Path
    size: tuple[int, int]
    camera: Floats  # focal length and centre, in pixels
    rotation: Floats
    moved: Floats
    depth: Floats


class NAVI(PairDataset):
    """Pairs of views of an object; points are pixels of A whose place on the object B shows.

    Args:
        root: the folder with the objects' folders and custom_splits, or the folder that holds it.
        split: `wild_set` (other backgrounds and light) or `multiview`.
        points: maximum number of points, evenly spread over the pixels that both images show.

    Raises:
        DatasetError: the list is missing or malformed.
    """

    def __init__(self, root: str | Path, *, split: str = "wild_set", points: int = 500) -> None:
        check_integer("points", points, 1)
        place = SPEC.find(root, split)
        file = place / _LISTS.format(split=split)
        rows = read_words(file, {"image_a": str, "image_b": str, "angle": _angle}, _HOW)
        if not rows:
            raise DatasetError(file, f"it lists no pair. {_HOW}")
        super().__init__(SPEC.name, place, split, rows)
        self._points = points

    def category(self, index: int) -> str:
        """Return the bin of the angle between the cameras, such as `030 to 060 degrees`."""
        low = min(int(self.entries[index][2] // _BIN) * _BIN, 180 - _BIN)
        return f"{low:03d} to {low + _BIN:03d} degrees"

    def read(self, index: int) -> Pair:
        *names, _ = self.entries[index]
        file = self.root / _LISTS.format(split=self.split)
        a, b = (_read_view(path_inside(self.root, name, file)) for name in names)
        return Pair.of(
            f"{names[0]}-{names[1]}",
            self.category(index),
            image=[a.image, b.image],
            size=[a.size, b.size],
            points=spread(*_shared_points(a, b), self._points),
            label=[Path(name).parts[0].replace("_", " ") for name in names],
        )


def _read_view(image: Path) -> _View:
    scene = image.parent.parent
    file = scene / "annotations.json"
    known = _annotations(file).get(image.name)
    if known is None:
        raise DatasetError(file, f"it has no image {image.name!r}. {_HOW}")
    with reading(file, f"{image.name} lacks a value or has a wrong one", _HOW):
        height, width = known["image_size"]
        size = as_size(width, height, file, f"image_size of {image.name}")
        focal = float(known["camera"]["focal_length"])
        turn, moved = (np.array(known["camera"][key], np.float64) for key in ("q", "t"))
    length = np.linalg.norm(turn)
    sound = turn.shape == (4,) and moved.shape == (3,) and np.isfinite([*turn, *moved]).all()
    if not (sound and length > 0 and 0 < focal < math.inf):
        raise DatasetError(
            file, f"camera of {image.name} must have q (w, x, y, z), t and a positive focal_length"
        )
    return _View(
        annotated_image(image, size, _HOW),
        size,
        np.array([focal, size[1] / 2 - 0.5, size[0] / 2 - 0.5]),
        _rotation(turn / length),
        moved,
        _read_depth(scene / "depth" / f"{image.stem}.png", size),
    )


@lru_cache(maxsize=64)
def _annotations(file: Path) -> dict[str, Any]:
    values = parse_json(file, _HOW)
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise DatasetError(file, f"it must be a list of objects. {_HOW}")
    return {str(each.get("filename")): each for each in values}


def _rotation(q: Floats) -> Floats:
    w, vector = q[0], q[1:]
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + 2 * w * cross + 2 * cross @ cross)


def _read_depth(path: Path, size: tuple[int, int]) -> Floats:
    """Return the depth of each pixel in millimetres; infinite off the object."""
    from PIL import Image

    with reading(path, "the depth map cannot be read", _HOW), Image.open(path) as opened:
        values = np.asarray(opened, np.float64)
    if values.shape != size:
        raise DatasetError(path, f"its shape is {values.shape}, and that of its image {size}")
    with np.errstate(divide="ignore"):
        return _DISPARITY / values


def _shared_points(a: _View, b: _View) -> tuple[Floats, Floats]:
    """Return pixels of A, and where B shows the same place of the object."""
    points = np.argwhere(np.isfinite(a.depth))[:, ::-1].astype(np.float64)
    depth = a.depth[np.isfinite(a.depth)]
    rays = np.c_[(points - a.camera[1:]) / a.camera[0], np.ones(len(points))]
    places = (rays * depth[:, None] - a.moved) @ a.rotation  # in the coordinates of the object
    seen = places @ b.rotation.T + b.moved
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = seen[:, :2] / seen[:, 2:] * b.camera[0] + b.camera[1:]
    shown = (seen[:, 2] > 0) & inside(moved, b.size)
    points, moved, seen = points[shown], moved[shown], seen[shown]
    x, y = moved.round().astype(int).T
    visible = np.abs(b.depth[y, x] - seen[:, 2]) < _NEAR
    return points[visible], moved[visible]


def _angle(word: str) -> float:
    if not 0 <= float(word) <= 180:
        raise ValueError(f"angle must lie in [0, 180], got {word}")
    return float(word)


SPEC = DatasetSpec(
    name="navi",
    load=NAVI,
    layout="<object>/{multiview-*,wild_set}/{annotations.json,images/*.jpg,depth/*.png} and "
    "custom_splits/pairwise_pixel_correspondences/pairs-{multiview,wild_set}.txt",
    source=_HOW,
    license="see its publisher",
    folder="navi_v1.5",
    inside=(_LISTS.format(split="*"),),
    splits=("wild_set", "multiview"),
    split_path=_LISTS,
)
