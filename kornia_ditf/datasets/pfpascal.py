"""PF-PASCAL: pairs of one category's objects with keypoints (Ham et al., arXiv 1703.07144)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.datasets.files import find_root, image_size, read_csv
from kornia_ditf.datasets.pairs import Pair, PairDataset, as_points
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError, MissingExtraError

_HOW = (
    "Get PF-dataset-PASCAL.zip from https://www.di.ens.fr/willow/research/proposalflow/ and the "
    "lists of pairs from https://github.com/ignacio-rocco/weakalign"
)
CATEGORIES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_COLUMNS = ("source_image", "target_image", "class")
_POINTS = ("XA", "YA", "XB", "YB")


class PFPascal(PairDataset):
    """One split, in the order of its list."""

    def __init__(self, root: Path, split: str, file: Path, rows: list[dict[str, str]]) -> None:
        super().__init__("pf-pascal", root, split)
        self._file, self._rows = file, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({self.category(index) for index in range(len(self))}))

    def category(self, index: int) -> str:
        number = self._rows[index]["class"]
        try:
            return CATEGORIES[range(1, 21).index(int(float(number)))]
        except ValueError as error:
            raise DatasetError(
                self._file, f"line {index + 2}: class must be 1 to 20, got {number!r}"
            ) from error

    def read(self, index: int) -> Pair:
        row, category = self._rows[index], self.category(index)
        paths = [self.root.parent / row[name] for name in _COLUMNS[:2]]
        if not paths[0].is_file():
            paths = [self.root / "JPEGImages" / path.name for path in paths]
        sizes = [image_size(path, _HOW) for path in paths]
        if row.get("XA"):
            points = [self._listed(row, side, index) for side in "AB"]
            seen = [torch.ones(len(each), dtype=torch.float64) for each in points]
        else:
            folder = self.root / "Annotations" / category
            read = [_annotated(folder / f"{path.stem}.mat") for path in paths]
            points, seen = [each[0] for each in read], [each[1] for each in read]
        if len(points[0]) != len(points[1]):
            raise DatasetError(
                self._file,
                f"line {index + 2}: {len(points[0])} points in the source and {len(points[1])} in "
                "the target, which must be as many",
            )
        return Pair(
            name=f"{self.split}/{index:04d}-{paths[0].stem}-{paths[1].stem}",
            category=category,
            image_a=paths[0],
            image_b=paths[1],
            size_a=sizes[0],
            size_b=sizes[1],
            points_a=points[0],
            points_b=points[1],
            visibility_a=seen[0],
            visibility_b=seen[1],
            label_a=category,
            label_b=category,
        )

    def _listed(self, row: dict[str, str], side: str, index: int) -> Tensor:
        try:
            x, y = ([float(v) for v in row[f"{axis}{side}"].split(";") if v] for axis in "XY")
            values = [[*pair] for pair in zip(x, y, strict=True)]
        except (ValueError, KeyError, AttributeError) as error:
            raise DatasetError(
                self._file,
                f"line {index + 2}: X{side} and Y{side} must be equally many numbers, ; between",
            ) from error
        return as_points(values, self._file, f"line {index + 2}: X{side}, Y{side}")


def _annotated(path: Path) -> tuple[Tensor, Tensor]:
    """Read keypoints and their visibility from a .mat file, whose missing ones are NaN."""
    values = _load_mat(path).get("kps")
    if values is None or values.ndim != 2 or values.shape[1] != 2:
        raise DatasetError(path, f"it must hold kps of shape (K, 2). {_HOW}")
    points = torch.tensor(values.astype(float).tolist(), dtype=torch.float64).reshape(-1, 2)
    known = torch.isfinite(points).all(1)
    return torch.where(known[:, None], points, 0), known.double()


def _load_mat(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtraError(
            f"reading {path.name} needs scipy; type `pip install 'kornia-ditf[study]'`"
        ) from error
    if not path.is_file():
        raise DatasetError(path, f"there is no such file. {_HOW}")
    try:
        content: dict[str, Any] = loadmat(path)
    except Exception as error:  # scipy raises anything from ValueError to struct.error
        raise DatasetError(path, f"it is no MATLAB file ({error}). {_HOW}") from error
    return content


def load(root: str | Path, *, split: str = "test") -> PFPascal:
    """Read the list of one split.

    Args:
        root: PF-dataset-PASCAL, or the folder that holds it.
        split: trn, val or test. Where the list has no coordinates, as that of trn, points are
            read from Annotations/<category>/*.mat, which needs scipy.

    Raises:
        DatasetError: the list is missing or malformed.
    """
    place = find_root(root, SPEC.folder, SPEC.inside, _HOW)
    if split not in SPEC.splits:
        raise DatasetError(place, f"it has no split {split!r}; known: {', '.join(SPEC.splits)}")
    file = place / f"{split}_pairs_pf_pascal.csv"
    if split == "trn" and not file.is_file():
        file = place / "train_pairs_pf_pascal.csv"
    return PFPascal(place, split, file, read_csv(file, _COLUMNS, _HOW))


SPEC = DatasetSpec(
    name="pf-pascal",
    load=load,
    layout="JPEGImages/*.jpg, Annotations/<category>/*.mat, {trn,val,test}_pairs_pf_pascal.csv "
    "(source_image, target_image, class from 1, XA, YA, XB, YB with ; between numbers)",
    source=_HOW,
    license="see its publisher; images from PASCAL VOC",
    folder="PF-dataset-PASCAL",
    inside=("JPEGImages", "*_pairs_pf_pascal.csv"),
    splits=("test", "val", "trn"),
    split_path="{split}_pairs_pf_pascal.csv",
)
