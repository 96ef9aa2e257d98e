"""Image pairs with known cameras and pose, from the lists of SuperGlue and glue-factory.

A line names two images, then quarter turns that bring each upright (not in glue-factory's lists),
both calibration matrices (9 numbers each), and the pose that takes points of camera A to camera B
(4 x 4, or a rotation and a translation: 16 or 12 numbers). ScanNet-1500, MegaDepth-1500, YFCC and
phototourism are published so. LoFTR's ScanNet-1500 (test.npz with `name` and `rel_pose`, and
intrinsics.npz) is read as well.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt
import torch

from kornia_ditf.datasets.files import (
    cached_picture,
    given_folder,
    image_size,
    path_inside,
    read_text,
    reading,
)
from kornia_ditf.datasets.pairs import Floats, Pair, PairDataset, as_camera, as_pose
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError
from kornia_ditf.utils.images import read_image

_HOW = (
    "A line holds two images, optionally two quarter turns, K of each (9 numbers) and T_AtoB (16, "
    "or 12 for rotation and translation), as in scannet_test_pairs_with_gt.txt"
)
_LISTS = ("*pairs_with_gt.txt", "pairs_calibrated.txt", "test.npz")
_PICKLED = (
    "it holds Python objects ({}), which are not read, since they may run code. Where you trust "
    "the file, turn it into a text list as docs/datasets.md shows under Pairs with poses"
)
_FORMS = {38: (True, 16), 36: (False, 16), 34: (True, 12), 32: (False, 12)}
"""By the number of words in a line, whether there are quarter turns, and how long the pose is."""


class _Line(NamedTuple):
    where: str
    images: tuple[str, str]
    turns: tuple[int, int]
    cameras: tuple[Floats, Floats]
    pose: Floats


class PosedPairs(PairDataset):
    """Pairs with `camera_a`, `camera_b` and `pose`, in the order of their list.

    An image that the list says is turned is turned upright into the cache, and its camera and the
    pose with it, by the arithmetic of SuperGlue's `match_pairs.py`.

    Args:
        root: the folder of the images, with the list in it.
        split: always all.
        file: name of the list below `root`; None takes the one that is there.
        images: folder below `root` that names in the list begin in.

    Raises:
        DatasetError: there is no list, several to choose from, or a line is malformed.
    """

    def __init__(
        self, root: str | Path, *, split: str = "all", file: str | None = None, images: str = ""
    ) -> None:
        folder = given_folder(root)
        SPEC.check_split(split, folder)
        if file is None:
            found = sorted(path for pattern in _LISTS for path in folder.glob(pattern))
            if len(found) != 1:
                names = ", ".join(path.name for path in found) or "none"
                raise DatasetError(
                    folder,
                    f"it must hold one list ({', '.join(_LISTS)}), got {names}; name it: file",
                )
            listed = found[0]
        else:
            listed = path_inside(folder, file, folder)
        read = _read_npz if listed.suffix == ".npz" else _read_lines
        lines = [_parse(text, listed, where) for where, text in read(listed)]
        if not lines:
            raise DatasetError(listed, f"it lists no pair. {_HOW}")
        place = folder if not images else path_inside(folder, images, listed)
        elsewhere = not (folder / lines[0].images[0]).is_file()
        if not images and elsewhere and (folder / "images").is_dir():
            place = folder / "images"  # as glue-factory keeps MegaDepth-1500
        super().__init__(SPEC.name, place, split, lines)
        self._file = listed

    def category(self, index: int) -> str:
        return "all"

    def read(self, index: int) -> Pair:
        line: _Line = self.entries[index]
        images, sizes, cameras = [], [], []
        for name, turn, camera in zip(line.images, line.turns, line.cameras, strict=True):
            path = path_inside(self.root, name, self._file)
            size = image_size(path, f"{self._file.name} names it, {line.where}", upright=True)
            camera = _turn_camera(camera, size, turn)
            images.append(_turn_image(path, name, turn) if turn else path)
            sizes.append(size[::-1] if turn % 2 else size)
            cameras.append(torch.from_numpy(camera))
        from_a, from_b = (_turn_in_plane(turn) for turn in line.turns)
        pose = from_b @ line.pose @ np.linalg.inv(from_a) if any(line.turns) else line.pose
        nothing = torch.empty(0, 2, dtype=torch.float64)
        return Pair.of(
            f"{index:05d}-{Path(line.images[0]).stem}-{Path(line.images[1]).stem}",
            "all",
            image=images,
            size=sizes,
            points=(nothing, nothing),
            camera=cameras,
            pose=torch.from_numpy(pose),
        )


def _parse(text: str, file: Path, where: str) -> _Line:
    words = text.split()
    if len(words) not in _FORMS:
        raise DatasetError(file, f"{where}: {len(words)} words. {_HOW}")
    turned, length = _FORMS[len(words)]
    turns = tuple(int(word) if word in ("0", "1", "2", "3") else -1 for word in words[2:4])
    if turned and min(turns) < 0:
        raise DatasetError(
            file, f"{where}: quarter turns must be 0, 1, 2 or 3, got {words[2]} and {words[3]}"
        )
    with reading(file, f"{where}: it must hold numbers", _HOW):
        numbers = np.array([float(word) for word in words[4 if turned else 2 :]])
    cameras = numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3)
    for side, camera in zip("ab", cameras, strict=True):
        as_camera(torch.from_numpy(camera), file, f"{where}: camera_{side}")
    pose = np.eye(4)
    if length == 16:
        pose = numbers[18:].reshape(4, 4)
    else:
        pose[:3, :3], pose[:3, 3] = numbers[18:27].reshape(3, 3), numbers[27:]
    as_pose(torch.from_numpy(pose), file, f"{where}: pose")
    images = words[0], words[1]
    return _Line(where, images, turns if turned else (0, 0), cameras, pose)  # type: ignore[arg-type]


def _turn_camera(camera: Floats, size: tuple[int, int], turn: int) -> Floats:
    """Return the camera of an image turned by quarters counter-clockwise (`rotate_intrinsics`)."""
    height, width = size
    fx, fy, cx, cy = camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2]
    values: dict[int, list[Any]] = {
        1: [fy, fx, cy, width - 1 - cx],
        2: [fx, fy, width - 1 - cx, height - 1 - cy],
        3: [fy, fx, height - 1 - cy, cx],
    }
    if not turn:
        return camera
    x, y, u, v = values[turn]
    return np.array([[x, 0.0, u], [0.0, y, v], [0.0, 0.0, 1.0]])


def _turn_in_plane(turn: int) -> Floats:
    """Return what a turn of the image does to points in its camera (`rotate_pose_inplane`)."""
    angle = math.radians((0, 270, 180, 90)[turn])
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def _turn_image(path: Path, name: str, turn: int) -> Path:
    """Turn an image, as OpenCV reads it, by quarters counter-clockwise into the cache."""
    digest = hashlib.sha256(path.read_bytes() + bytes([turn])).hexdigest()[:32]
    return cached_picture(
        f"turned/{digest}/{Path(name).stem}.png",
        lambda: np.rot90(read_image(path)[0].permute(1, 2, 0).numpy(), turn),
    )


def _read_lines(file: Path) -> list[tuple[str, str]]:
    """Return the lines of a list with their numbers, without empty ones and `#` comments."""
    numbered = enumerate(read_text(file, _HOW).splitlines(), 1)
    return [
        (f"line {number}", line)
        for number, line in numbered
        if line.strip() and not line.lstrip().startswith("#")
    ]


def _read_npz(file: Path) -> list[tuple[str, str]]:
    """Return LoFTR's list of ScanNet as lines of a text list."""
    pairs, scenes = _arrays(file), _arrays(file.with_name("intrinsics.npz"))
    if "name" not in pairs or "rel_pose" not in pairs:
        raise DatasetError(file, f"it has {', '.join(pairs)}; expected name and rel_pose. {_HOW}")
    names, poses = pairs["name"], pairs["rel_pose"]
    if names.ndim != 2 or names.shape[1] != 4 or len(poses) != len(names) or poses[:1].size != 12:
        raise DatasetError(
            file, f"name must be (N, 4) and rel_pose (N, 12), got {names.shape} and {poses.shape}"
        )
    lines = []
    for row, ((scene, take, *frames), pose) in enumerate(zip(names.tolist(), poses, strict=True)):
        place = f"scene{scene:04d}_{take:02d}"
        if place not in scenes:
            raise DatasetError(file.with_name("intrinsics.npz"), f"it has no {place}")
        camera = scenes[place].ravel().tolist()
        numbers = [*camera, *camera, *pose.reshape(3, 4)[:, :3].ravel(), *pose.reshape(3, 4)[:, 3]]
        words = [f"{place}/color/{frame}.jpg" for frame in frames]
        lines.append((f"row {row}", " ".join([*words, *(repr(float(each)) for each in numbers)])))
    return lines


def _arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Read an npz file without unpickling anything."""
    name = ""
    try:
        with ZipFile(file) as archive:
            found = {}
            for name in archive.namelist():
                with archive.open(name) as opened:
                    array = np.lib.format.read_array(opened, allow_pickle=False)
                found[name.removesuffix(".npy")] = array
            return found
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error) and name:  # an array of objects
            raise DatasetError(file, _PICKLED.format(name.removesuffix(".npy"))) from error
        raise DatasetError(file, f"it cannot be read as npz ({error}). {_HOW}") from error


SPEC = DatasetSpec(
    name="posed-pairs",
    load=PosedPairs,
    layout="a list of pairs (*pairs_with_gt.txt of SuperGlue or pairs_calibrated.txt of "
    "glue-factory) and the images that it names",
    source="lists: https://github.com/magicleap/SuperGluePretrainedNetwork (assets) and "
    "https://github.com/cvg/glue-factory; images: ScanNet, MegaDepth, YFCC100M, phototourism",
    license="see their publishers",
    inside=("*pairs_with_gt.txt",),
    splits=("all",),
)
