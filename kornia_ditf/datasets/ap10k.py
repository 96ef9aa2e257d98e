"""AP-10K as GeoAware-SC pairs it: animals with 17 keypoints, within and across species.

Animals: Yu et al., arXiv 2108.12617. Pairs: Zhang et al., arXiv 2311.17034, prepare_ap10k.ipynb.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.datasets import symmetry
from kornia_ditf.datasets.files import annotated_image, path_inside, read_json, reading
from kornia_ditf.datasets.pairs import Box, Pair, PairDataset, as_box, as_points, as_size
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError

_HOW = (
    "Get ap-10k.zip from https://github.com/AlexTheBad/AP-10K and run prepare_ap10k.ipynb of "
    "https://github.com/Junyi42/GeoAware-SC"
)
_IMAGE_KEYS = {"bbox": list, "keypoints": list, "width": int, "height": int}
_POINTS = 17


class AP10K(PairDataset):
    """One split, in the order of the pairs' names; a pair has all 17 points, some not visible.

    Args:
        root: ap-10k, or the folder that holds it.
        split: trn, val or test for pairs of one species; val_cross_species, test_cross_species,
            val_cross_family or test_cross_family.

    Raises:
        DatasetError: a folder is missing, or a name malformed.
    """

    def __init__(self, root: str | Path, *, split: str = "test") -> None:
        place = SPEC.find(root, split)
        folder = place / "PairAnnotation" / split
        names = sorted(path.name for path in folder.glob("*.json"))
        if not names:
            raise DatasetError(folder, f"it is missing or holds no pair *.json. {_HOW}")
        for name in names:
            if ":" not in name:
                raise DatasetError(
                    folder / name, f"its name is not <image>-<image>:<category>.json. {_HOW}"
                )
        super().__init__(SPEC.name, place, split, names)

    def category(self, index: int) -> str:
        return _category(self.entries[index])

    def read(self, index: int) -> Pair:
        name = self.entries[index]
        path = self.root / "PairAnnotation" / self.split / name
        values = read_json(path, {"src_json_path": str, "trg_json_path": str}, _HOW)
        animals = [self._animal(values[f"{side}_json_path"], path) for side in ("src", "trg")]
        return Pair.of(
            f"{self.split}/{name.removesuffix('.json')}",
            _category(name),
            **{key: [animal[key] for animal in animals] for key in animals[0]},
            partners=symmetry.partners(symmetry.AP10K, range(_POINTS)),
        )

    def _animal(self, named: str, pair: Path) -> dict[str, Any]:
        # Paths in pair files begin where their author's script ran.
        parts = PurePosixPath(named.replace("\\", "/")).parts
        if "ImageAnnotation" not in parts:
            raise DatasetError(pair, f"{named!r} does not go through ImageAnnotation. {_HOW}")
        inner = "/".join(parts[parts.index("ImageAnnotation") + 1 :])
        path = path_inside(self.root / "ImageAnnotation", inner, pair)
        values = read_json(path, _IMAGE_KEYS, _HOW)
        size = as_size(values["width"], values["height"], path, "width and height")
        image = path_inside(self.root / "JPEGImages", inner, pair).with_suffix(".jpg")
        points, visibility = _keypoints(values["keypoints"], path)
        return {
            "image": annotated_image(image, size, _HOW),
            "size": size,
            "points": points,
            "visibility": visibility,
            "box": _box(values["bbox"], path),
            "label": path.parent.name,
        }


def _category(name: str) -> str:
    return name.removesuffix(".json").rpartition(":")[2]


def _keypoints(values: list[float], path: Path) -> tuple[Tensor, Tensor]:
    if len(values) != 3 * _POINTS:
        raise DatasetError(path, f"keypoints must hold 17 times x, y, v, got {len(values)} numbers")
    rows = [values[start : start + 3] for start in range(0, len(values), 3)]
    points = as_points([row[:2] for row in rows], path, "keypoints")
    if any(row[2] not in (0, 1, 2) for row in rows):
        raise DatasetError(path, "the visibility of a keypoint must be 0, 1 or 2")
    return points, torch.tensor([row[2] / 2 for row in rows], dtype=torch.float64)


def _box(values: list[float], path: Path) -> Box:
    what = "bbox must be left, top, width, height, both sides above 0"
    with reading(path, f"{what}, got {str(values)[:60]}", _HOW):
        left, top, width, height = values
        return as_box(
            [left, top, left + width, top + height], path, "bbox, with width and height added,"
        )


SPEC = DatasetSpec(
    name="ap-10k",
    load=AP10K,
    layout="{JPEGImages,ImageAnnotation}/<family>/<species>/<image>.{jpg,json}, "
    "PairAnnotation/<split>/<image>-<image>:<species, family or all>.json",
    source=_HOW,
    license="CC BY 4.0 (annotations)",
    folder="ap-10k",
    inside=("ImageAnnotation/*/*/*.json", "JPEGImages", "PairAnnotation"),
    splits=(
        *("test", "test_cross_species", "test_cross_family", "val", "val_cross_species"),
        *("val_cross_family", "trn"),
    ),
    split_path="PairAnnotation/{split}",
)
