"""CUB-200-2011: birds with 15 parts (Wah et al. 2011), in seeded pairs of one class."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from kornia_ditf.datasets.files import find_root, image_size, path_inside, read_text
from kornia_ditf.datasets.pairs import Pair, PairDataset, as_box, as_points, as_visibility
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError
from kornia_ditf.utils.checks import check_integer

_HOW = (
    "Get CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011 and unpack it"
)
_PARTS = 15
_NEEDED = 3


class CUB(PairDataset):
    """Pairs of two images of one class that show at least three parts in common."""

    def __init__(
        self,
        root: Path,
        split: str,
        pairs: list[tuple[str, str]],
        names: dict[str, str],
        parts: dict[str, tuple[Tensor, Tensor]],
        boxes: dict[str, list[float]],
    ) -> None:
        super().__init__("cub", root, split)
        self._pairs, self._names, self._parts, self._boxes = pairs, names, parts, boxes

    def __len__(self) -> int:
        return len(self._pairs)

    def category(self, index: int) -> str:
        return _class_of(self._names[self._pairs[index][0]])

    def read(self, index: int) -> Pair:
        pair = self._pairs[index]
        listed = self.root / "images.txt"
        paths = [path_inside(self.root / "images", self._names[each], listed) for each in pair]
        file = self.root / "bounding_boxes.txt"
        boxes = []
        for each in pair:
            x, y, width, height = self._boxes[each]
            boxes.append(as_box((x, y, x + width, y + height), file, f"box of image {each}"))
        label = self.category(index).partition(".")[2].replace("_", " ")
        points, seen = zip(*(self._parts[each] for each in pair), strict=True)
        return Pair.of(
            f"{paths[0].stem}-{paths[1].stem}",
            self.category(index),
            image=paths,
            size=[image_size(path, _HOW) for path in paths],
            points=points,
            visibility=seen,
            box=boxes,
            label=(label, label),
        )


def _class_of(name: str) -> str:
    return name.partition("/")[0]


def _table(path: Path, columns: int) -> list[list[str]]:
    rows = [line.split() for line in read_text(path, _HOW).splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) != columns:
            raise DatasetError(path, f"line {number} must have {columns} words. {_HOW}")
    return rows


def _read_parts(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    rows: dict[str, list[list[float]]] = {}
    for number, (image, part, *values) in enumerate(_table(path, 5), 1):
        try:
            place, numbers = int(part) - 1, [float(value) for value in values]
        except ValueError as error:
            raise DatasetError(path, f"line {number}: {error}. {_HOW}") from error
        if not 0 <= place < _PARTS:
            raise DatasetError(path, f"line {number}: parts are 1 to {_PARTS}, got {part}")
        rows.setdefault(image, [[0.0, 0.0, 0.0] for _ in range(_PARTS)])[place] = numbers
    found = {}
    for image, values3 in rows.items():
        points = as_points([row[:2] for row in values3], path, f"parts of image {image}")
        seen = [row[2] for row in values3]
        found[image] = points, as_visibility(seen, _PARTS, path, f"parts of image {image}")
    return found


def load(root: str | Path, *, split: str = "test", pairs: int = 10, seed: int = 0) -> CUB:
    """Draw pairs of images of one class.

    There is no list of pairs that evaluations share, so results are of these draws.

    Args:
        root: CUB_200_2011, or the folder that holds it.
        split: test or train, of train_test_split.txt.
        pairs: how many pairs are drawn of each class, at most.
        seed: of the draws.

    Raises:
        DatasetError: a file is missing or malformed.
    """
    check_integer("pairs", pairs, 1)
    place = find_root(root, SPEC.folder, SPEC.inside, _HOW)
    SPEC.check_split(split, place)
    names = {row[0]: row[1] for row in _table(place / "images.txt", 2)}
    wanted = "1" if split == "train" else "0"
    chosen = {row[0] for row in _table(place / "train_test_split.txt", 2) if row[1] == wanted}
    parts = _read_parts(place / "parts" / "part_locs.txt")
    boxes_file = place / "bounding_boxes.txt"
    try:
        boxes = {row[0]: [float(each) for each in row[1:]] for row in _table(boxes_file, 5)}
    except ValueError as error:
        raise DatasetError(boxes_file, f"{error}. {_HOW}") from error
    for image in chosen:
        if image not in names or image not in boxes or image not in parts:
            raise DatasetError(place, f"image {image} lacks its name, box or parts. {_HOW}")
    classes: dict[str, list[str]] = {}
    for image in sorted(chosen, key=lambda each: names[each]):
        classes.setdefault(_class_of(names[image]), []).append(image)
    drawn: list[tuple[str, str]] = []
    for name, images in sorted(classes.items()):
        shared = [
            each
            for each in combinations(images, 2)
            if int(torch.stack([parts[image][1] for image in each]).prod(0).count_nonzero())
            >= _NEEDED
        ]
        drawn += sorted(Random(f"{seed} {name}").sample(shared, min(pairs, len(shared))))
    if not drawn:
        raise DatasetError(place, f"no two images of a class share {_NEEDED} parts. {_HOW}")
    return CUB(place, split, drawn, names, parts, boxes)


SPEC = DatasetSpec(
    name="cub",
    load=load,
    layout="images/<class>/*.jpg, images.txt, train_test_split.txt, bounding_boxes.txt and "
    "parts/part_locs.txt",
    source=_HOW,
    license="images for non-commercial research; see its publisher",
    folder="CUB_200_2011",
    inside=("images.txt", "parts/part_locs.txt"),
    splits=("test", "train"),
)
