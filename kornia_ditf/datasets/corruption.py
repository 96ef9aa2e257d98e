"""Any set of pairs with its second images blurred, noisy, compressed, relit, scaled or turned."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.datasets.files import cached_picture, image_size
from kornia_ditf.datasets.pairs import Floats, Pair, PairDataset
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.functional import project
from kornia_ditf.utils.checks import check_number, check_one_of
from kornia_ditf.utils.images import read_image

KINDS = {
    "blur": (0.0, 100.0),
    "noise": (0.0, 1.0),
    "jpeg": (1.0, 100.0),
    "light": (0.0, 1.0),
    "scale": (0.1, 10.0),
    "rotation": (-360.0, 360.0),
}
"""The kinds, each with the least and the greatest level."""

Pixels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """A change of the second image of every pair.

    Args:
        kind: `blur` (the sigma of a Gaussian in pixels), `noise` (its standard deviation, where
            white is 1), `jpeg` (quality, 1 to 100), `light` (gamma, contrast and tint, up to
            1), `scale` (how many times as large) or `rotation` (degrees counter-clockwise; the
            canvas grows).
        level: how much.
        seed: of noise and light.

    Raises:
        InvalidArgumentError: an unknown kind, or a level out of range.
    """

    kind: str
    level: float
    seed: int = 0

    def __post_init__(self) -> None:
        check_one_of("corrupt.kind", self.kind, KINDS)
        low, high = KINDS[self.kind]
        check_number(f"corrupt.level of {self.kind}", self.level, f"[{low:g}, {high:g}]")


class CorruptedPairs(PairDataset):
    """Pairs of another set with their second images changed; these are kept in the cache.

    Args:
        pairs: the other set.
        corruption: what is done.
    """

    def __init__(self, pairs: PairDataset, corruption: Corruption) -> None:
        super().__init__(pairs.name, pairs.root, pairs.split, pairs)
        self._pairs, self._corruption = pairs, corruption

    def category(self, index: int) -> str:
        return self._pairs.category(index)

    def read(self, index: int) -> Pair:
        pair, change = self._pairs[index], self._corruption
        if change.kind == "rotation" and pair.pose is not None:
            raise InvalidArgumentError("pairs with poses cannot be turned by corrupt: rotation")
        target, matrix, size = _changed_image(pair.image_b, pair.size_b, change)
        points = project(matrix, pair.points_b)
        values: dict[str, Any] = {}
        if pair.box_b is not None:
            left, top, right, bottom = pair.box_b
            corners = torch.tensor([[x, y] for x in (left, right) for y in (top, bottom)])
            moved = project(matrix, corners)
            values["box_b"] = (*moved.amin(0).tolist(), *moved.amax(0).tolist())
        if pair.homography is not None:
            values["homography"] = matrix @ pair.homography
        if pair.camera_b is not None:
            values["camera_b"] = matrix @ pair.camera_b
        return replace(pair, image_b=target, size_b=size, points_b=points, **values)


def _changed_image(
    path: Path, size: tuple[int, int], change: Corruption
) -> tuple[Path, Tensor, tuple[int, int]]:
    """Return the changed image, the matrix that takes points to it, and its size."""
    digest = hashlib.sha256(path.read_bytes() + repr(change).encode()).hexdigest()
    matrix, new_size = _geometry(size, change)

    def make() -> Pixels:
        upright = image_size(path, "") != size
        image = read_image(path, upright=upright)[0].permute(1, 2, 0).numpy()
        generator = np.random.Generator(np.random.PCG64(int(digest[:16], 16)))
        return _corrupt(image, change, generator, matrix, new_size)

    target = cached_picture(f"corrupted/{digest[:32]}/{path.stem}.png", make)
    return target, torch.from_numpy(matrix), new_size


def _geometry(size: tuple[int, int], change: Corruption) -> tuple[Floats, tuple[int, int]]:
    height, width = size
    if change.kind == "scale":
        new = max(1, round(height * change.level)), max(1, round(width * change.level))
        x, y = new[1] / width, new[0] / height
        # Edges of pixels map linearly, and centres with them.
        return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]]), new
    if change.kind == "rotation":
        angle = math.radians(change.level)
        cosine, sine = math.cos(angle), math.sin(angle)
        new = (
            math.ceil(abs(height * cosine) + abs(width * sine) - 1e-6),
            math.ceil(abs(width * cosine) + abs(height * sine) - 1e-6),
        )
        turn = np.array([[cosine, sine], [-sine, cosine]])  # y points down
        centre, middle = np.array([width - 1, height - 1]) / 2, np.array(new[::-1]) / 2 - 0.5
        matrix = np.eye(3)
        matrix[:2, :2], matrix[:2, 2] = turn, middle - turn @ centre
        return matrix, new
    return np.eye(3), size


def _corrupt(
    image: Pixels,
    change: Corruption,
    generator: np.random.Generator,
    matrix: Floats,
    size: tuple[int, int],
) -> Pixels:
    import cv2

    level, corrupted = change.level, image
    match change.kind:
        case "blur" if level:
            corrupted = cv2.GaussianBlur(image, (0, 0), level)
        case "noise":
            corrupted = image + generator.standard_normal(image.shape) * level
        case "jpeg":
            pixels = np.clip(np.round(image * 255), 0, 255).astype(np.uint8)
            encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, round(level)])[1]
            decoded: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
            corrupted = decoded / 255
        case "light":
            gamma, contrast = (float(sign) * level for sign in generator.choice([-1, 1], 2))
            corrupted = np.clip(image, 0, 1) ** (2.0**gamma)
            tint = 1 + (generator.random(3) - 0.5) * level
            corrupted = ((corrupted - 0.5) * (1 + contrast / 2) + 0.5) * tint
        case "scale":
            how = cv2.INTER_AREA if level < 1 else cv2.INTER_LINEAR
            corrupted = cv2.resize(image, size[::-1], interpolation=how)
        case "rotation":
            corrupted = cv2.warpAffine(image, matrix[:2], size[::-1], flags=cv2.INTER_LINEAR)
    return np.asarray(corrupted)
