"""JHMDB: videos of people with 15 joints (Jhuang et al., ICCV 2013), as pairs of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kornia_ditf.datasets.files import folders, image_size, read_words
from kornia_ditf.datasets.matfile import read_mat
from kornia_ditf.datasets.pairs import Pair, PairDataset, as_points, inside
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError
from kornia_ditf.utils.checks import check_integer

_HOW = (
    "Get Rename_Images.tar.gz, joint_positions.zip and splits.zip from "
    "http://jhmdb.is.tue.mpg.de and unpack them into one folder"
)
_JOINTS = 15


class JHMDB(PairDataset):
    """Each video's first frame with a later one; category is the action.

    Args:
        root: the folder that holds Rename_Images, joint_positions and splits.
        split: test or train.
        part: which of the three splits.
        apart: number of frames between the two of a pair; the last one of a shorter video.

    Raises:
        DatasetError: a file is missing or malformed.
    """

    def __init__(
        self, root: str | Path, *, split: str = "test", part: int = 1, apart: int = 20
    ) -> None:
        check_integer("part", part, 1, 3)
        check_integer("apart", apart, 1)
        place = SPEC.find(root, split)
        wanted = {"train": "1", "test": "2"}[split]
        videos = []
        for action in folders(place / "joint_positions"):
            file = place / "splits" / f"{action}_test_split{part}.txt"
            rows = read_words(file, {"VIDEO": _video, "NUMBER": str}, _HOW)
            videos += [f"{action}/{video}" for video, number in rows if number == wanted]
        if not videos:
            raise DatasetError(place / "splits", f"they list no video of {split}. {_HOW}")
        super().__init__(SPEC.name, place, split, videos)
        self._apart = apart

    def category(self, index: int) -> str:
        video: str = self.entries[index]
        return video.partition("/")[0]

    def read(self, index: int) -> Pair:
        video = self.entries[index]
        file = self.root / "joint_positions" / video / "joint_positions.mat"
        joints = read_mat(file, _HOW).get("pos_img")
        if joints is None or joints.shape[:2] != (2, _JOINTS) or joints.ndim != 3:
            raise DatasetError(file, f"it must hold pos_img of shape (2, {_JOINTS}, T). {_HOW}")
        folder = self.root / "Rename_Images" / video
        frames = sorted(folder.glob("*.png"))[: joints.shape[2]]
        if len(frames) < 2:
            raise DatasetError(folder, f"it must hold at least two frames *.png. {_HOW}")
        later = min(self._apart, len(frames) - 1)
        sizes = [image_size(frames[number], _HOW) for number in (0, later)]
        # MATLAB counts pixels from 1.
        places = [joints[:, :, number].T - 1 for number in (0, later)]
        points = [as_points(np.nan_to_num(each), file, "pos_img") for each in places]
        seen = [
            torch.from_numpy(inside(each, size).astype(np.float64))
            for each, size in zip(places, sizes, strict=True)
        ]
        return Pair.of(
            f"{video}/{frames[0].stem}-{frames[later].stem}",
            self.category(index),
            image=(frames[0], frames[later]),
            size=sizes,
            points=points,
            visibility=seen,
            label=("person", "person"),
        )


def _video(word: str) -> str:
    if "/" in word:
        raise ValueError(f"{word!r} is not the name of a video")
    return word.removesuffix(".avi")


SPEC = DatasetSpec(
    name="jhmdb",
    load=JHMDB,
    layout="Rename_Images/<action>/<video>/*.png, joint_positions/<action>/<video>/"
    "joint_positions.mat and splits/<action>_test_split<1-3>.txt",
    source=_HOW,
    license="see its publisher",
    folder="JHMDB",
    inside=("Rename_Images", "joint_positions"),
    splits=("test", "train"),
)
