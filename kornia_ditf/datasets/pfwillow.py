"""PF-WILLOW: pairs of one category's objects with ten keypoints (Ham et al., arXiv 1511.05065)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from kornia_ditf.datasets.files import find_root, image_size, read_csv
from kornia_ditf.datasets.pairs import Pair, PairDataset, as_points
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError

_HOW = (
    "Get PF-dataset.zip from https://www.di.ens.fr/willow/research/proposalflow/ and its list of "
    "pairs, test_pairs.csv, from https://github.com/juhongm999/dhpf"
)
_POINTS = 10
_FILE = "test_pairs.csv"


class PFWillow(PairDataset):
    """All pairs, in the order of their list."""

    def __init__(self, root: Path, split: str, file: Path, rows: list[dict[str, str]]) -> None:
        super().__init__("pf-willow", root, split)
        self._file, self._rows = file, [list(row.values()) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({PurePosixPath(row[0]).parent.name for row in self._rows}))

    def read(self, index: int) -> Pair:
        row = self._rows[index]
        if len(row) != 2 + 4 * _POINTS or None in row:
            raise DatasetError(
                self._file,
                f"line {index + 2}: expected two images and 40 numbers (ten x and ten y of the "
                f"source, then of the target), got {len(row)} cells",
            )
        paths = [self._image(name) for name in row[:2]]
        points = [self._points(row[start : start + 20], index) for start in (2, 22)]
        sizes = [image_size(path, _HOW) for path in paths]
        seen = torch.ones(_POINTS, dtype=torch.float64)
        category = paths[0].parent.name
        label = category.partition("(")[0]
        return Pair(
            name=f"{index:04d}-{category}-{paths[0].stem}-{paths[1].stem}",
            category=category,
            image_a=paths[0],
            image_b=paths[1],
            size_a=sizes[0],
            size_b=sizes[1],
            points_a=points[0],
            points_b=points[1],
            visibility_a=seen,
            visibility_b=seen,
            label_a=label,
            label_b=label,
        )

    def _image(self, name: str) -> Path:
        # The list names them from the folder above PF-dataset, wherever the list itself lies.
        inner = self.root.joinpath(*PurePosixPath(name).parts[1:])
        return inner if inner.is_file() else self.root / name

    def _points(self, cells: list[str], index: int) -> Tensor:
        try:
            numbers = [float(cell) for cell in cells]
        except ValueError as error:
            raise DatasetError(self._file, f"line {index + 2}: {error}") from error
        values = [[x, y] for x, y in zip(numbers[:_POINTS], numbers[_POINTS:], strict=True)]
        return as_points(values, self._file, f"line {index + 2}: points")


def load(root: str | Path, *, split: str = "test") -> PFWillow:
    """Read the list of pairs.

    Args:
        root: PF-dataset with test_pairs.csv in it or beside it, or the folder that holds both.
        split: always test.

    Raises:
        DatasetError: the list is missing or malformed.
    """
    given = Path(root).expanduser()
    candidates = [given / "PF-dataset", given / "PF-WILLOW", given]
    place = next((each for each in candidates if each.is_dir()), given)
    file = next((f for f in (place / _FILE, place.parent / _FILE) if f.is_file()), place / _FILE)
    if split not in SPEC.splits:
        raise DatasetError(place, f"it has no split {split!r}, only test")
    find_root(file.parent, SPEC.folder, (_FILE,), _HOW)
    return PFWillow(place, split, file, read_csv(file, (), _HOW))


SPEC = DatasetSpec(
    name="pf-willow",
    load=load,
    layout="PF-dataset/<category>/*.png and test_pairs.csv in it or beside it (two images, then "
    "ten x and ten y of the first and of the second)",
    source=_HOW,
    license="see its publisher",
    folder="PF-dataset",
    inside=("test_pairs.csv",),
)
