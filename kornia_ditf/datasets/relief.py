"""A second view of a photograph that is bent into a relief, with exact cameras and pose.

The photograph lies on a smooth surface in front of camera A. Camera B moves around its middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kornia_ditf.datasets.pairs import Floats

_DISTANCE = 4.0
_HILLS = 6
_STEPS = 40
_SETTLED = 1e-3
_DEGREES = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Relief:
    """A surface before camera A, and a second camera.

    Args:
        camera: calibration matrix of both, shape (3, 3).
        pose: takes points of camera A to camera B, shape (4, 4).
        slope: of the surface, to the right and downwards.
        hills: centre (x, y), width and height of each; x from -1 to 1 over the longer side.
    """

    camera: Floats
    pose: Floats
    slope: Floats
    hills: Floats

    def depth(self, points: Floats) -> Floats:
        """Return how far the surface is at pixels (..., 2) of A."""
        centre = self.camera[[0, 1], [2, 2]]
        flat = (points - centre) / centre.max()
        away = flat[..., None, :] - self.hills[:, :2]
        bumps = self.hills[:, 3] * np.exp(-(away**2).sum(-1) / self.hills[:, 2] ** 2)
        return np.asarray(_DISTANCE * (1 + flat @ self.slope + bumps.sum(-1)))

    def project(self, points: Floats) -> Floats:
        """Project pixels (..., 2) of A, on the surface, into B."""
        moved = self._rays(points) * self.depth(points)[..., None] @ self.pose[:3, :3].T
        seen = (moved + self.pose[:3, 3]) @ self.camera.T
        return np.asarray(seen[..., :2] / seen[..., 2:])

    def find(self, points: Floats) -> Floats:
        """Find, for pixels (..., 2) of B, where in A they are, by fixed-point iteration."""
        rotation, shift = self.pose[:3, :3], self.pose[:3, 3] @ self.pose[:3, :3]
        rays = self._rays(points) @ rotation
        found = points
        for _ in range(_STEPS):
            before, away = found, (self.depth(found) + shift[2]) / rays[..., 2]
            seen = (rays * away[..., None] - shift) @ self.camera.T
            found = seen[..., :2] / seen[..., 2:]
            if np.abs(found - before).max(initial=0) < _SETTLED:
                break
        return np.asarray(found)

    def _rays(self, points: Floats) -> Floats:
        return np.asarray(
            np.concatenate([points, np.ones_like(points[..., :1])], -1)
            @ np.linalg.inv(self.camera).T
        )


def random_relief(generator: np.random.Generator, size: tuple[int, int], strength: float) -> Relief:
    """Draw a surface, and a camera that moved around its middle by up to 100 * strength degrees."""
    import cv2

    height, width = size
    focal = 1.2 * max(size)
    camera = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    axis = generator.standard_normal(3) * [1, 1, 0.3]
    angle = np.deg2rad(_DEGREES * strength * (0.5 + generator.random() / 2))
    rotation = cv2.Rodrigues(axis / np.linalg.norm(axis) * angle)[0]
    middle = np.array([0, 0, _DISTANCE])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, middle - rotation @ middle
    hills = np.concatenate(
        [
            generator.uniform(-1, 1, (_HILLS, 2)),
            generator.uniform(0.4, 0.8, (_HILLS, 1)),
            generator.uniform(-0.15, 0.15, (_HILLS, 1)),
        ],
        1,
    )
    return Relief(camera, pose, generator.uniform(-0.15, 0.15, 2), hills)


def render(image: npt.NDArray[Any], relief: Relief) -> npt.NDArray[Any]:
    """Render what camera B sees of a photograph (H, W, 3); its edge is mirrored beyond."""
    import cv2

    height, width = image.shape[:2]
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float64)
    x, y = np.moveaxis(relief.find(pixels).astype(np.float32), -1, 0)
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def random_points(
    generator: np.random.Generator,
    size: tuple[int, int],
    relief: Relief,
    count: int,
    margin: int,
) -> tuple[Floats, Floats]:
    """Draw pixels of A that B shows as well, at least `margin` pixels inside both.

    Returns:
        (x, y) in A and in B; fewer than `count` where the views share little.
    """
    span = np.array([size[1], size[0]]) - 1
    points = np.round(margin + generator.random((8 * count, 2)) * (span - 2 * margin))
    mapped = relief.project(points)
    seen = ((mapped >= margin) & (mapped <= span - margin)).all(1)
    seen &= np.abs(relief.find(mapped) - points).max(1) < 0.1  # not hidden behind a hill
    return points[seen][:count], mapped[seen][:count]
