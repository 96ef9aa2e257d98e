"""HPatches: planar scenes from several viewpoints or in several lights, with homographies.

Balntas et al., arXiv 1704.05939. Each sequence pairs its first image with the five others.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kornia_ditf.datasets.files import folders, given_folder, image_size, read_text, reading
from kornia_ditf.datasets.pairs import Pair, PairDataset, as_homography, as_points
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError

_HOW = (
    "Get hpatches-sequences-release.tar.gz from https://github.com/hpatches/hpatches-dataset and "
    "unpack it"
)
_KEYPOINTS = "The evaluation of DIFT brings superpoint-1k, 1000 SuperPoint keypoints an image"
LARGE = frozenset(
    {
        *("i_contruction", "i_crownnight", "i_dc", "i_pencils", "i_whitebuilding"),
        *("v_artisans", "v_astronautis", "v_talent"),
    }
)
"""The eight sequences above 1200 x 1600 pixels, which D2-Net's evaluation and later ones remove."""
_CATEGORIES = {"i": "illumination", "v": "viewpoint"}
_OTHERS = (2, 3, 4, 5, 6)


class HPatches(PairDataset):
    """Pairs of each sequence's first image with its others, sequences in alphabetical order.

    Args:
        root: hpatches-sequences-release, or the folder that holds it.
        split: all, illumination or viewpoint.
        large: keep the eight large sequences, which published evaluations remove.
        keypoints: a folder of <sequence>-<image>.kp, a keypoint `x y` a line, such as DIFT's
            superpoint-1k; without it pairs have no points.

    Raises:
        DatasetError: a folder is missing.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "all",
        large: bool = False,
        keypoints: str | Path | None = None,
    ) -> None:
        place = SPEC.find(root, split)
        wanted = [
            name
            for name in folders(place)
            if name[:2] in ("i_", "v_")
            and (large or name not in LARGE)
            and split in ("all", _CATEGORIES[name[0]])
        ]
        if not wanted:
            raise DatasetError(place, f"it holds no folder i_* or v_* of split {split!r}. {_HOW}")
        points = None if keypoints is None else given_folder(keypoints)
        if points is not None and not points.is_dir():
            raise DatasetError(points, f"there is no such folder. {_KEYPOINTS}")
        pairs = [(sequence, other) for sequence in wanted for other in _OTHERS]
        super().__init__(SPEC.name, place, split, pairs)
        self._keypoints = points

    def category(self, index: int) -> str:
        sequence, _ = self.entries[index]
        return _CATEGORIES[sequence[0]]

    def read(self, index: int) -> Pair:
        sequence, other = self.entries[index]
        folder = self.root / sequence
        images = [folder / f"{each}.ppm" for each in (1, other)]
        file = folder / f"H_1_{other}"
        return Pair.of(
            f"{sequence}/1-{other}",
            self.category(index),
            image=images,
            size=[image_size(path, _HOW) for path in images],
            points=[self._points(sequence, each) for each in (1, other)],
            homography=as_homography(_read_numbers(file, _HOW), file, "it"),
        )

    def _points(self, sequence: str, image: int) -> Tensor:
        if self._keypoints is None:
            return torch.empty(0, 2, dtype=torch.float64)
        path = self._keypoints / f"{sequence}-{image}.kp"
        rows = _read_numbers(path, _KEYPOINTS)
        return as_points([row[:2] for row in rows], path, "each line")


def _read_numbers(path: Path, how: str) -> list[list[float]]:
    with reading(path, "it must hold numbers", how):
        lines = read_text(path, how).splitlines()
        return [[float(cell) for cell in line.split()] for line in lines if line.strip()]


SPEC = DatasetSpec(
    name="hpatches",
    load=HPatches,
    layout="{i,v}_<name>/{1..6}.ppm and H_1_{2..6}",
    source=_HOW,
    license="see its publisher",
    folder="hpatches-sequences-release",
    inside=("[iv]_*/H_1_2",),
    splits=("all", "illumination", "viewpoint"),
)
