"""Own image pairs: a folder with `pairs.json` or `pairs.csv` beside the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kornia_ditf.datasets.files import (
    given_folder,
    image_size,
    parse_json,
    path_inside,
    read_csv,
    reading,
)
from kornia_ditf.datasets.pairs import (
    Pair,
    PairDataset,
    as_box,
    as_homography,
    as_points,
    as_visibility,
    check_as_many,
)
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError

_COLUMNS = ("image_a", "image_b", "xa", "ya", "xb", "yb")
_KEYS = (
    *("image_a", "image_b", "points_a", "points_b", "visible", "box_a", "box_b"),
    *("category", "name", "label_a", "label_b", "homography"),
)
_HOW = f"Write pairs.csv with the columns {', '.join(_COLUMNS)}, or pairs.json"


class FolderPairs(PairDataset):
    """Pairs that a JSON or CSV file lists; what its rows hold is in `SPEC.layout`.

    Args:
        root: the folder; names of images are relative to it.
        split: always all.
        file: name of the list, where it is neither pairs.json nor pairs.csv.

    Raises:
        DatasetError: there is no list, or a row of it is malformed.
    """

    def __init__(self, root: str | Path, *, split: str = "all", file: str | None = None) -> None:
        folder = given_folder(root)
        SPEC.check_split(split, folder)
        names = (file,) if file else ("pairs.json", "pairs.csv")
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise DatasetError(folder / names[-1], f"there is no such file. {_HOW}")
        read = _read_csv if found[0].suffix.lower() == ".csv" else _read_json
        entries = read(found[0])
        if not entries:
            raise DatasetError(found[0], f"it lists no pair. {_HOW}")
        super().__init__(SPEC.name, folder, split, entries)
        self._file = found[0]
        for error in self.defects():
            raise error

    def category(self, index: int) -> str:
        return str(self.entries[index].get("category", "all"))

    def read(self, index: int) -> Pair:
        entry = self.entries[index]

        def checked(key: str, check: Callable[..., Any], default: Any = None) -> Any:
            value = entry.get(key, default)
            return None if value is None else check(value, self._file, f"pair {index}: {key}")

        paths = [path_inside(self.root, entry[f"image_{side}"], self._file) for side in "ab"]
        points = [checked(f"points_{side}", as_points, []) for side in "ab"]
        check_as_many(self._file, f"pair {index}: ", points_a=points[0], points_b=points[1])
        count = len(points[0])
        visible = checked("visible", partial(as_visibility, count), [1] * count)
        category = self.category(index)
        label = "" if category == "all" else category
        how = f"{self._file.name} names it"
        return Pair.of(
            self._name(index),
            category,
            image=paths,
            size=[image_size(path, how, upright=True) for path in paths],
            points=points,
            visibility=(visible, visible),
            box=[checked(f"box_{side}", as_box) for side in "ab"],
            homography=checked("homography", as_homography),
            label=[str(entry.get(f"label_{side}", label)) for side in "ab"],
        )

    def _name(self, index: int) -> str:
        entry = self.entries[index]
        stems = (Path(str(entry[f"image_{side}"])).stem for side in "ab")
        return str(entry.get("name", "-".join((str(index), *stems))))

    def defects(self) -> Iterator[DatasetError]:
        """Yield names that several pairs have; their results could not be told apart."""
        counts = Counter(self._name(index) for index in range(len(self)))
        for name, count in counts.items():
            if count > 1:
                yield DatasetError(self._file, f"{count} pairs have the name {name!r}")


def _read_json(path: Path) -> list[dict[str, Any]]:
    values = parse_json(path, _HOW)
    entries = values.get("pairs") if isinstance(values, dict) else values
    if not isinstance(entries, list):
        raise DatasetError(path, "it must hold a list of pairs")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"image_a", "image_b"} <= set(entry):
            raise DatasetError(path, f"pair {index} must have image_a and image_b")
        unknown = set(entry) - set(_KEYS)
        if unknown:
            raise DatasetError(
                path, f"pair {index} has {min(unknown)!r}; known are {', '.join(_KEYS)}"
            )
    return entries


def _read_csv(path: Path) -> list[dict[str, Any]]:
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for line, row in enumerate(read_csv(path, _COLUMNS, _HOW), 2):
        with reading(path, f"line {line}: xa, ya, xb, yb must be numbers", _HOW):
            xa, ya, xb, yb = (float(row[name]) for name in _COLUMNS[2:])
        pair = (row["image_a"], row["image_b"])
        entry = entries.setdefault(
            pair,
            {"image_a": pair[0], "image_b": pair[1], "points_a": [], "points_b": []}
            | {"category": row.get("category") or "all"},
        )
        entry["points_a"].append([xa, ya])
        entry["points_b"].append([xb, yb])
    return list(entries.values())


load = FolderPairs  # a former name

SPEC = DatasetSpec(
    name="folder",
    load=FolderPairs,
    layout="pairs.csv (image_a, image_b, xa, ya, xb, yb and optionally category; a row per point) "
    "or pairs.json (a list of objects with image_a, image_b, points_a, points_b and optionally "
    "category, box_a, box_b, visible, homography, label_a, label_b, name), and the images",
    source="your own images",
    license="yours",
    inside=("pairs.[cj]s*",),
    splits=("all",),
)
