"""TSS: pairs of objects with dense flow (Taniai et al., CVPR 2016)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from kornia_ditf.datasets.files import folders, image_size, reading
from kornia_ditf.datasets.pairs import Pair, PairDataset, inside, spread
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError
from kornia_ditf.utils.checks import check_integer

_HOW = "Get TSS_CVPR2016.zip from https://taniai.space/projects/cvpr16_dccs and unpack it"
_SUBSETS = ("FG3DCar", "JODS", "PASCAL")
_MAGIC = 202021.25
_UNKNOWN = 1e9
_LONGEST = 20_000


class TSS(PairDataset):
    """Pairs whose points are pixels of image1.png with a known place in image2.png.

    Args:
        root: the folder with FG3DCar, JODS and PASCAL, or the folder that holds it.
        split: all, FG3DCar, JODS or PASCAL.
        points: maximum number of points, evenly spread over the pixels with flow.

    Raises:
        DatasetError: a folder is missing, or holds no pair.
    """

    def __init__(self, root: str | Path, *, split: str = "all", points: int = 1000) -> None:
        check_integer("points", points, 1)
        place = SPEC.find(root, split)
        names = [
            f"{subset}/{name}"
            for subset in (_SUBSETS if split == "all" else (split,))
            if (place / subset).is_dir()
            for name in folders(place / subset)
            if (place / subset / name / "flow1.flo").is_file()
        ]
        if not names:
            raise DatasetError(place, f"it holds no {split} pair with flow1.flo. {_HOW}")
        super().__init__(SPEC.name, place, split, names)
        self._points = points

    def category(self, index: int) -> str:
        name: str = self.entries[index]
        return name.partition("/")[0]

    def read(self, index: int) -> Pair:
        folder = self.root / self.entries[index]
        images = [folder / f"image{number}.png" for number in (1, 2)]
        sizes = [image_size(path, _HOW) for path in images]
        flow = read_flow(folder / "flow1.flo")
        if flow.shape[:2] != sizes[0]:
            raise DatasetError(
                folder / "flow1.flo", f"it has {flow.shape[:2]} rows and columns, not {sizes[0]}"
            )
        points = np.argwhere(np.abs(flow).max(2) < _UNKNOWN)[:, ::-1]
        moved = points + flow[points[:, 1], points[:, 0]]
        shown = inside(moved, sizes[1])
        return Pair.of(
            self.entries[index],
            self.category(index),
            image=images,
            size=sizes,
            points=spread(points[shown], moved[shown], self._points),
        )


def read_flow(path: Path) -> npt.NDArray[np.float32]:
    """Read a flow file of Middlebury's format.

    Returns:
        (x, y) by which each pixel moves, shape (H, W, 2); where it is not known, values from 1e9.

    Raises:
        DatasetError: it is missing, or no such file.
    """
    with reading(path, "it cannot be read", _HOW):
        content = path.read_bytes()
    if len(content) < 12 or np.frombuffer(content[:4], "<f4")[0] != np.float32(_MAGIC):
        raise DatasetError(path, f"it is not a flow file (.flo). {_HOW}")
    width, height = (int(side) for side in np.frombuffer(content[4:12], "<i4"))
    fits = 0 < width < _LONGEST and 0 < height < _LONGEST
    if not fits or len(content) != 12 + 8 * width * height:
        raise DatasetError(
            path, f"it says {width} x {height} pixels and has {len(content)} bytes. {_HOW}"
        )
    flow = np.frombuffer(content[12:], "<f4").reshape(height, width, 2)
    return np.asarray(np.nan_to_num(flow, nan=np.inf, posinf=np.inf, neginf=np.inf), np.float32)


SPEC = DatasetSpec(
    name="tss",
    load=TSS,
    layout="{FG3DCar,JODS,PASCAL}/<pair>/image1.png, image2.png and flow1.flo (from image1 to "
    "image2); flip_gt.txt is not applied",
    source=_HOW,
    license="see its publisher",
    folder="TSS_CVPR2016",
    inside=("*/*/flow1.flo",),
    splits=("all", *_SUBSETS),
)
