"""CUB-200-2011: birds with 15 parts (Wah et al. 2011), in seeded pairs of one class."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, groupby
from pathlib import Path
from random import Random
from typing import NamedTuple

from torch import Tensor

from kornia_ditf.datasets.files import image_size, path_inside, read_words
from kornia_ditf.datasets.pairs import Pair, PairDataset, as_box, as_points, as_visibility
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError
from kornia_ditf.utils.checks import check_integer

_HOW = (
    "Get CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011 and unpack it"
)
_PARTS = 15
_NEEDED = 3


class _Bird(NamedTuple):
    """An annotated image."""

    number: str
    name: str
    parts: Tensor
    seen: Tensor
    box: tuple[float, float, float, float]


class CUB(PairDataset):
    """Pairs of two images of one class that show at least three parts in common.

    There is no list of pairs that evaluations share, so results are of these draws.

    Args:
        root: CUB_200_2011, or the folder that holds it.
        split: test or train, of train_test_split.txt.
        pairs: how many pairs are drawn of each class, at most.
        seed: of the draws.

    Raises:
        DatasetError: a file is missing or malformed.
    """

    def __init__(
        self, root: str | Path, *, split: str = "test", pairs: int = 10, seed: int = 0
    ) -> None:
        check_integer("pairs", pairs, 1)
        place = SPEC.find(root, split)
        birds = list(_read_birds(place, split == "train"))
        birds.sort(key=lambda bird: (_class_of(bird), bird.name))
        drawn: list[tuple[_Bird, _Bird]] = []
        for name, members in groupby(birds, key=_class_of):
            shared = [
                (one, two)
                for one, two in combinations(members, 2)
                if int((one.seen * two.seen).count_nonzero()) >= _NEEDED
            ]
            chosen = Random(f"{seed} {name}").sample(shared, min(pairs, len(shared)))
            drawn += sorted(chosen, key=lambda pair: [bird.number for bird in pair])
        if not drawn:
            raise DatasetError(place, f"no two images of a class share {_NEEDED} parts. {_HOW}")
        super().__init__(SPEC.name, place, split, drawn)

    def category(self, index: int) -> str:
        return _class_of(self.entries[index][0])

    def read(self, index: int) -> Pair:
        birds: tuple[_Bird, _Bird] = self.entries[index]
        folder, listed = self.root / "images", self.root / "images.txt"
        boxes = self.root / "bounding_boxes.txt"
        paths = [path_inside(folder, bird.name, listed) for bird in birds]
        label = self.category(index).partition(".")[2].replace("_", " ")
        return Pair.of(
            f"{paths[0].stem}-{paths[1].stem}",
            self.category(index),
            image=paths,
            size=[image_size(path, _HOW) for path in paths],
            points=[bird.parts for bird in birds],
            visibility=[bird.seen for bird in birds],
            box=[as_box(bird.box, boxes, f"box of image {bird.number}") for bird in birds],
            label=(label, label),
        )


def _class_of(bird: _Bird) -> str:
    return bird.name.partition("/")[0]


def _part(word: str) -> int:
    if not 1 <= int(word) <= _PARTS:
        raise ValueError(f"parts are 1 to {_PARTS}, got {word}")
    return int(word) - 1


def _read_parts(path: Path) -> dict[str, list[tuple[float, ...]]]:
    """Return (x, y, visible) of every part of each image."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for image, part, *values in read_words(
        path, {"image": str, "part": _part, "x": float, "y": float, "visible": float}, _HOW
    ):
        found.setdefault(image, [(0.0, 0.0, 0.0)] * _PARTS)[part] = tuple(values)
    return found


def _read_birds(place: Path, train: bool) -> Iterator[_Bird]:
    """Read the annotations of the images for training, or of the others."""
    names = dict(read_words(place / "images.txt", {"image": str, "name": str}, _HOW))
    parts_file = place / "parts" / "part_locs.txt"
    parts = _read_parts(parts_file)
    columns = {"image": str, "x": float, "y": float, "width": float, "height": float}
    boxes = {image: box for image, *box in read_words(place / "bounding_boxes.txt", columns, _HOW)}
    splits = read_words(place / "train_test_split.txt", {"image": str, "train": int}, _HOW)
    for image, wanted in splits:
        if bool(wanted) != train:
            continue
        if image not in names or image not in boxes or image not in parts:
            raise DatasetError(place, f"image {image} lacks its name, box or parts. {_HOW}")
        what, (x, y, width, height) = f"parts of image {image}", boxes[image]
        yield _Bird(
            image,
            names[image],
            as_points([row[:2] for row in parts[image]], parts_file, what),
            as_visibility(_PARTS, [row[2] for row in parts[image]], parts_file, what),
            (x, y, x + width, y + height),
        )


SPEC = DatasetSpec(
    name="cub",
    load=CUB,
    layout="images/<class>/*.jpg, images.txt, train_test_split.txt, bounding_boxes.txt and "
    "parts/part_locs.txt",
    source=_HOW,
    license="images for non-commercial research; see its publisher",
    folder="CUB_200_2011",
    inside=("images.txt", "parts/part_locs.txt"),
    splits=("test", "train"),
)
