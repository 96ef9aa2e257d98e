"""Synthetic pairs: any images warped by random homographies, changed in light, or bent and moved.

Image B is made when its pair is first read, and kept in the cache under a hash of the image and
the change. A cached file whose checksum is wrong is made again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kornia_ditf.datasets.files import cached_picture, given_folder, image_size, list_images
from kornia_ditf.datasets.pairs import Floats, Pair, PairDataset
from kornia_ditf.datasets.relief import Relief, random_points, random_relief, render
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.utils.cache import sha256
from kornia_ditf.utils.checks import check_integer, check_number
from kornia_ditf.utils.images import read_image

_KINDS = ("viewpoint", "illumination", "both")
_POSE = "pose"
_MARGIN = 4
"""Points lie at least so many pixels inside both images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How image B differs from image A; see `SyntheticPairs`.

    Args:
        kind: viewpoint (a homography), illumination (light, noise and blur), both, or pose (the
            photograph bent into a relief, and seen by a camera that moved around it).
        strength: how much.
        seed: of the random numbers.
        points: how many points the pair has.
    """

    kind: str
    strength: float
    seed: int
    points: int


class SyntheticPairs(PairDataset):
    """Each image of a folder with its changed versions; category is the kind of change.

    Args:
        root: a folder of images; folders in it are not looked into.
        split: viewpoint, illumination or both (one kind of change), or all three; or pose, whose
            pairs have cameras and a pose.
        seed: another one changes every pair.
        versions: how many of each kind are made of each image.
        strength: in (0, 0.45]; how far corners move at most, as a part of the sides, or by how
            many times 100 degrees a camera moves at most.
        points: how many points each pair has.
        pattern: takes only images of such names, as in `*.jpg`.

    Raises:
        DatasetError: the folder is missing or holds no image.
        InvalidArgumentError: a number out of range.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "all",
        seed: int = 0,
        versions: int = 1,
        strength: float = 0.2,
        points: int = 64,
        pattern: str = "*",
    ) -> None:
        folder = given_folder(root)
        check_integer("versions", versions, 1)
        check_integer("points", points, 1)
        check_integer("seed", seed, 0)
        check_number("strength", strength, "(0, 0.45]")
        SPEC.check_split(split, folder)
        images = list_images(folder, pattern)
        changes = [
            Change(kind=kind, strength=strength, seed=seed * 1000 + version, points=points)
            for version in range(versions)
            for kind in (_KINDS if split == "all" else (split,))
        ]
        made = [(image, change) for image in images for change in changes]
        super().__init__(SPEC.name, folder, split, made)

    def category(self, index: int) -> str:
        _, change = self.entries[index]
        return str(change.kind)

    def read(self, index: int) -> Pair:
        path, change = self.entries[index]
        size = image_size(path, "It was there when the folder was listed", upright=True)
        key = hashlib.sha256(json.dumps([sha256(path), asdict(change)]).encode()).hexdigest()
        generator = np.random.Generator(np.random.PCG64(int(key[:16], 16)))
        view: Relief | Floats
        if change.kind == _POSE:
            view = relief = random_relief(generator, size, change.strength)
            places = random_points(generator, size, relief, change.points, _MARGIN)
            camera = torch.from_numpy(relief.camera)
            known: dict[str, Any] = {
                "camera": (camera, camera),
                "pose": torch.from_numpy(relief.pose),
            }
        else:
            homography = np.eye(3)
            if change.kind != "illumination":
                homography = _random_homography(generator, size, change.strength)
            view = homography
            places = _random_points(generator, size, homography, change.points)
            known = {"homography": torch.from_numpy(homography)}
        target = cached_picture(
            f"synthetic/{key[:32]}.png",
            lambda: _change(path, view, change, generator),
        )
        whole = (0.0, 0.0, float(size[1]), float(size[0]))
        return Pair.of(
            f"{path.stem}-{change.kind}-{change.seed}-{key[:6]}",
            change.kind,
            image=(path, target),
            size=(size, size),
            points=[torch.from_numpy(each) for each in places],
            box=(whole, whole),
            **known,
        )


def _random_homography(
    generator: np.random.Generator, size: tuple[int, int], strength: float
) -> Floats:
    """Move each corner inwards by up to a part of the sides."""
    import cv2

    height, width = size
    sides = np.array([width - 1, height - 1], np.float64)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    inwards = np.where(corners > 0, -1, 1) * generator.random((4, 2)) * strength
    moved = (corners + inwards) * sides
    return np.asarray(
        cv2.getPerspectiveTransform((corners * sides).astype(np.float32), moved.astype(np.float32)),
        np.float64,
    )


def _random_points(
    generator: np.random.Generator,
    size: tuple[int, int],
    homography: Floats,
    count: int,
) -> tuple[Floats, Floats]:
    low, span = _MARGIN, np.array([size[1], size[0]]) - 1 - 2 * _MARGIN
    # Whole pixels of A; corners only move inwards, so all of A is in B.
    points = np.round(low + generator.random((count, 2)) * span)
    mapped = np.concatenate([points, np.ones((count, 1))], 1) @ homography.T
    return points, mapped[:, :2] / mapped[:, 2:]


def _change(
    source: Path,
    view: Relief | Floats,
    change: Change,
    generator: np.random.Generator,
) -> npt.NDArray[Any]:
    import cv2

    image: npt.NDArray[Any] = read_image(source)[0].permute(1, 2, 0).numpy()
    if isinstance(view, Relief):
        image = render(image, view)
    elif change.kind != "illumination":
        size = (image.shape[1], image.shape[0])
        image = cv2.warpPerspective(image, view, size, borderMode=cv2.BORDER_REFLECT)
    if change.kind in ("illumination", "both"):
        image = _relight(image, generator, change.strength)
    return image


def _relight(
    image: npt.NDArray[Any], generator: np.random.Generator, strength: float
) -> npt.NDArray[Any]:
    import cv2

    gamma, contrast, shift = (generator.random(3) * 2 - 1) * strength
    tint = 1 + (generator.random(3) * 2 - 1) * strength / 2
    changed = np.clip(image, 0, 1) ** (2.0 ** (2 * gamma))
    changed = np.clip((changed - 0.5) * (1 + contrast) + 0.5 + shift / 2, 0, 1) * tint
    changed = cv2.GaussianBlur(changed, (0, 0), 0.3 + 2 * strength * generator.random())
    noise = generator.random(changed.shape) + generator.random(changed.shape) - 1
    return np.asarray(np.clip(changed + noise * strength / 10, 0, 1))


SPEC = DatasetSpec(
    name="synthetic",
    load=SyntheticPairs,
    layout="images, in one folder",
    source="your own images",
    license="yours",
    splits=("all", *_KINDS, _POSE),
)
