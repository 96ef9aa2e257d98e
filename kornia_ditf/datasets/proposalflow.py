"""PF-PASCAL and PF-WILLOW: pairs of one category's objects with keypoints.

Ham et al., Proposal Flow, arXiv 1511.05065 (PF-WILLOW) and arXiv 1703.07144 (PF-PASCAL).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kornia_ditf.datasets.files import (
    given_folder,
    image_size,
    is_file,
    path_inside,
    read_csv,
    read_rows,
    reading,
)
from kornia_ditf.datasets.matfile import read_mat
from kornia_ditf.datasets.pairs import Pair, PairDataset, as_points, check_as_many
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError

_PASCAL = (
    "Get PF-dataset-PASCAL.zip from https://www.di.ens.fr/willow/research/proposalflow/ and the "
    "lists of pairs from https://github.com/ignacio-rocco/weakalign"
)
_WILLOW = (
    "Get PF-dataset.zip from https://www.di.ens.fr/willow/research/proposalflow/ and its list of "
    "pairs, test_pairs.csv, from https://github.com/juhongm999/dhpf"
)
CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_COLUMNS = ("source_image", "target_image", "class")
_POINT_COLUMNS = ("XA", "YA", "XB", "YB")
_POINTS = 10
_FILE = "test_pairs.csv"


class _ListedPairs(PairDataset):
    """Pairs in the order of a CSV file."""

    _how: str
    _file: Path

    def _image(self, name: str) -> Path:
        """Find an image, which lists name from the folder above that of the data set."""
        whole = path_inside(self.root, name, self._file)
        inner = self.root.joinpath(*whole.relative_to(self.root).parts[1:])
        candidates = (inner, whole, self.root / "JPEGImages" / whole.name)
        return next((path for path in candidates if is_file(path)), inner)

    def _points(self, x: Sequence[str], y: Sequence[str], index: int) -> Tensor:
        where = f"line {index + 2}: x and y"
        with reading(self._file, f"{where} must be equally many numbers", self._how):
            points = [[float(a), float(b)] for a, b in zip(x, y, strict=True)]
        return as_points(points, self._file, where)

    def _pair(
        self,
        index: int,
        name: str,
        paths: Sequence[Path],
        points: Sequence[Tensor],
        seen: Sequence[Tensor] | None = None,
    ) -> Pair:
        check_as_many(self._file, f"line {index + 2}: ", XA=points[0], XB=points[1])
        category = self.category(index)
        label = category.partition("(")[0]
        return Pair.of(
            f"{name}-{paths[0].stem}-{paths[1].stem}",
            category,
            image=paths,
            size=[image_size(path, self._how) for path in paths],
            points=points,
            visibility=seen,
            label=(label, label),
        )


class PFPascal(_ListedPairs):
    """One split of PF-PASCAL, in the order of its list.

    Args:
        root: PF-dataset-PASCAL, or the folder that holds it.
        split: trn, val or test. Where the list has no coordinates, as that of trn, points are
            read from Annotations/<category>/*.mat.

    Raises:
        DatasetError: the list is missing or malformed.
    """

    _how = _PASCAL

    def __init__(self, root: str | Path, *, split: str = "test") -> None:
        spec = PASCAL_SPEC
        place = spec.find(root, split)
        file = place / f"{split}_pairs_pf_pascal.csv"
        if split == "trn" and not file.is_file():
            file = place / "train_pairs_pf_pascal.csv"
        super().__init__(spec.name, place, split, read_csv(file, _COLUMNS, _PASCAL))
        self._file = file

    def category(self, index: int) -> str:
        number = self.entries[index]["class"]
        what = f"line {index + 2}: class must be 1 to 20, got {number!r}"
        with reading(self._file, what, _PASCAL):
            return CATEGORIES[range(1, 21).index(int(float(number)))]

    def read(self, index: int) -> Pair:
        row = self.entries[index]
        paths = [self._image(row[name]) for name in _COLUMNS[:2]]
        name = f"{self.split}/{index:04d}"
        if set(_POINT_COLUMNS) <= set(row):
            points = [
                self._points(_split(row[f"X{side}"]), _split(row[f"Y{side}"]), index)
                for side in "AB"
            ]
            return self._pair(index, name, paths, points)
        folder = self.root / "Annotations" / self.category(index)
        read = [_annotated(folder / f"{path.stem}.mat") for path in paths]
        return self._pair(index, name, paths, *zip(*read, strict=True))


class PFWillow(_ListedPairs):
    """All pairs of PF-WILLOW, in the order of their list.

    Args:
        root: PF-dataset with test_pairs.csv in it or beside it, or the folder that holds both.
        split: always test.

    Raises:
        DatasetError: the list is missing or malformed.
    """

    _how = _WILLOW

    def __init__(self, root: str | Path, *, split: str = "test") -> None:
        spec, given = WILLOW_SPEC, given_folder(root)
        candidates = [given / "PF-dataset", given / "PF-WILLOW", given]
        place = next((each for each in candidates if each.is_dir()), given)
        file = next(
            (f for f in (place / _FILE, place.parent / _FILE) if f.is_file()), place / _FILE
        )
        spec.find(file.parent, split)
        super().__init__(spec.name, place, split, read_rows(file, _WILLOW)[1:])
        self._file = file

    def category(self, index: int) -> str:
        return path_inside(self.root, self.entries[index][0], self._file).parent.name

    def read(self, index: int) -> Pair:
        row = self.entries[index]
        if len(row) != 2 + 4 * _POINTS:
            raise DatasetError(
                self._file,
                f"line {index + 2}: expected two images and 40 numbers (ten x and ten y of the "
                f"source, then of the target), got {len(row)} cells",
            )
        x_a, y_a, x_b, y_b = (row[start : start + _POINTS] for start in range(2, 42, _POINTS))
        points = [self._points(x_a, y_a, index), self._points(x_b, y_b, index)]
        name = f"{index:04d}-{self.category(index)}"
        return self._pair(index, name, [self._image(each) for each in row[:2]], points)


def _split(cell: str) -> list[str]:
    return [number for number in cell.split(";") if number]


def _annotated(path: Path) -> tuple[Tensor, Tensor]:
    """Read keypoints and their visibility from a .mat file, whose missing ones are NaN."""
    values = read_mat(path, _PASCAL).get("kps")
    if values is None or values.ndim != 2 or values.shape[1] != 2:
        raise DatasetError(path, f"it must hold numbers kps of shape (K, 2). {_PASCAL}")
    missing = np.asarray(np.isnan(values).all(1))
    points = as_points(np.where(missing[:, None], 0, values), path, "kps")
    return points, torch.from_numpy(~missing).double()


PASCAL_SPEC = DatasetSpec(
    name="pf-pascal",
    load=PFPascal,
    layout="JPEGImages/*.jpg, Annotations/<category>/*.mat, {trn,val,test}_pairs_pf_pascal.csv "
    "(source_image, target_image, class from 1, XA, YA, XB, YB with ; between numbers)",
    source=_PASCAL,
    license="see its publisher; images from PASCAL VOC",
    folder="PF-dataset-PASCAL",
    inside=("JPEGImages", "*_pairs_pf_pascal.csv"),
    splits=("test", "val", "trn"),
    split_path="{split}_pairs_pf_pascal.csv",
)
WILLOW_SPEC = DatasetSpec(
    name="pf-willow",
    load=PFWillow,
    layout="PF-dataset/<category>/*.png and test_pairs.csv in it or beside it (two images, then "
    "ten x and ten y of the first and of the second)",
    source=_WILLOW,
    license="see its publisher",
    folder="PF-dataset",
    inside=(_FILE,),
)
