"""SPair-71k: pairs of one category's objects with keypoints (Min et al., arXiv 1908.10543)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from kornia_ditf.datasets import symmetry
from kornia_ditf.datasets.files import (
    annotated_image,
    given_folder,
    path_inside,
    read_json,
    read_text,
)
from kornia_ditf.datasets.pairs import Pair, PairDataset, as_box, as_points, as_size, check_as_many
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError

_HOW = "Get SPair-71k.tar.gz from https://cvlab.postech.ac.kr/research/SPair-71k and unpack it"
_HOW_UNSEEN = (
    "Get SPair-U, keypoints that SPair-71k does not annotate, from its publisher (Mariotti et al., "
    "arXiv 2506.08220)"
)
_KEYS = {
    "src_imname": str,
    "trg_imname": str,
    "src_imsize": list,
    "trg_imsize": list,
    "src_bndbox": list,
    "trg_bndbox": list,
    "category": str,
    "src_kps": list,
    "trg_kps": list,
}
# Unpacked on Windows, the colon before the category becomes something else.
_NAME = re.compile(r"(\d+-.+)(?::|\uf03a|%3[aA]|_)([a-z]+)")


class SPair(PairDataset):
    """One split of SPair-71k, in the order of the pairs' numbers."""

    def __init__(
        self, name: str, root: Path, split: str, names: list[tuple[str, str]], images: Path
    ) -> None:
        super().__init__(name, root, split, names)
        self._images = images

    def category(self, index: int) -> str:
        category: str = self.entries[index][1]
        return category

    def read(self, index: int) -> Pair:
        name, category = self.entries[index]
        folder = self.root / "PairAnnotation" / self.split
        path = path_inside(folder, f"{name}.json", folder)
        values = read_json(path, _KEYS, _HOW)
        if values["category"] != category:
            raise DatasetError(path, f"its category is {values['category']!r}, not {category!r}")
        sizes = [_size(values[f"{side}_imsize"], path, f"{side}_imsize") for side in _SIDES]
        points = [as_points(values[f"{side}_kps"], path, f"{side}_kps") for side in _SIDES]
        identifiers = values.get("kps_ids", values["src_kps"])
        if not isinstance(identifiers, list):
            raise DatasetError(path, f"kps_ids must be a list, got {str(identifiers)[:60]}")
        check_as_many(path, src_kps=points[0], trg_kps=points[1], kps_ids=identifiers)
        folder = self._images / category
        images = [
            annotated_image(path_inside(folder, values[f"{side}_imname"], path), size, _HOW)
            for side, size in zip(_SIDES, sizes, strict=True)
        ]
        boxes = [as_box(values[f"{side}_bndbox"], path, f"{side}_bndbox") for side in _SIDES]
        return Pair.of(
            f"{self.split}/{name}",
            category,
            image=images,
            size=sizes,
            points=points,
            box=boxes,
            label=(category, category),
            partners=self._partners(category, identifiers),
        )

    def _partners(self, category: str, identifiers: list[Any]) -> Tensor | None:
        """Return which points change places in a mirror image; SPair-U's are not known."""
        numbers = [str(each) for each in identifiers]
        sides = symmetry.SPAIR.get(category) if self.name == SPEC.name else None
        if sides is None or not all(map(str.isdecimal, numbers)):
            return None
        return symmetry.partners(sides, [int(number) for number in numbers])

    def defects(self) -> Iterator[DatasetError]:
        """Yield lists of Layout that do not fit the pairs, and annotations that cannot be read."""
        known = {name for name, _ in self.entries}
        for path in sorted(self.root.glob(f"Layout/*/{self.split}.txt")):
            absent = [name for name in read_text(path, _HOW).split() if name not in known]
            if absent:
                folder = f"PairAnnotation/{self.split}"
                yield DatasetError(path, f"it names {absent[0]}, which is not in {folder}")
        for path in sorted(self.root.glob("ImageAnnotation/*/*.json")):
            try:
                read_json(path, {"kps": dict}, _HOW)
            except DatasetError as error:
                yield error


_SIDES = ("src", "trg")


def _size(values: list[Any], path: Path, what: str) -> tuple[int, int]:
    if len(values) < 2:
        raise DatasetError(path, f"{what} must be width, height, channels, got {values}")
    return as_size(values[0], values[1], path, what)


def load(root: str | Path, *, split: str = "test", layout: str | None = None) -> SPair:
    """Read the list of one split.

    Args:
        root: SPair-71k, or the folder that holds it.
        split: trn, val or test.
        layout: `large` or `small` takes the pairs that Layout/<layout>/<split>.txt lists; None
            takes every file of PairAnnotation/<split>, as the published evaluations do.

    Raises:
        DatasetError: a folder or list is missing or malformed.
    """
    place = SPEC.find(root, split)
    return _load(SPEC, place, place / "JPEGImages", split, layout)


def load_unseen(root: str | Path, *, split: str = "test", images: str | None = None) -> SPair:
    """Read the list of SPair-U, which has other keypoints on the images of SPair-71k.

    Args:
        root: SPair-U, or the folder that holds it and SPair-71k.
        split: test, val or trn.
        images: folder of JPEGImages; None takes its own, or those of SPair-71k beside it.

    Raises:
        DatasetError: a folder or list is missing or malformed.
    """
    place = UNSEEN_SPEC.find(root, split)
    known = [place / "JPEGImages", place.parent / "SPair-71k" / "JPEGImages"]
    given = known if images is None else [given_folder(images)]
    found = next((path for path in given if path.is_dir()), None)
    if found is None:
        raise DatasetError(given[0], f"there is no such folder. {_HOW}")
    return _load(UNSEEN_SPEC, place, found, split, None)


def _load(spec: DatasetSpec, place: Path, images: Path, split: str, layout: str | None) -> SPair:
    if layout is None:
        origin = place / "PairAnnotation" / split
        listed = [path.name.removesuffix(".json") for path in origin.glob("*.json")]
    else:
        origin = place / "Layout" / layout / f"{split}.txt"
        listed = [line.strip() for line in read_text(origin, _HOW).split("\n")]
    names = []
    for name in sorted(filter(None, listed)):
        match = _NAME.fullmatch(name)
        if match is None:
            raise DatasetError(origin, f"{name!r} is not NUMBER-IMAGE-IMAGE:CATEGORY. {_HOW}")
        names.append((name, match[2]))
    if not names:
        raise DatasetError(origin, f"it is missing or names no pair. {_HOW}")
    return SPair(spec.name, place, split, names, images)


SPEC = DatasetSpec(
    name="spair-71k",
    load=load,
    layout="JPEGImages/<category>/*.jpg, PairAnnotation/{trn,val,test}/"
    "<number>-<image>-<image>:<category>.json, Layout/{large,small}/{trn,val,test}.txt",
    source=_HOW,
    license="see its publisher; images from PASCAL VOC 2012 and PASCAL3D+",
    folder="SPair-71k",
    inside=("JPEGImages", "PairAnnotation"),
    splits=("test", "val", "trn"),
    split_path="PairAnnotation/{split}",
)
UNSEEN_SPEC = replace(
    SPEC,
    name="spair-u",
    load=load_unseen,
    layout="PairAnnotation/{test,val,trn}/*.json in SPair-71k's form, and JPEGImages here or in "
    "SPair-71k beside it",
    source=_HOW_UNSEEN,
    folder="SPair-U",
    inside=("PairAnnotation",),
)
