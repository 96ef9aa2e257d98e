"""Views of an image: cropped, resized or turned, with the transform that takes points back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """An image, or a part of it, turned or resized.

    Args:
        image: shape (1, 3, H, W).
        matrix: takes pixels (x, y, 1) of the whole image to those of the view.
        inside: which pixels show the image, bool, shape (H, W); all where it is None.
    """

    image: Tensor
    matrix: NDArray[Any] = field(default_factory=lambda: np.eye(3))
    inside: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[2], self.image.shape[3]

    def crop(self, box: tuple[int, int, int, int]) -> View:
        """Cut out columns and rows (left, top, right, bottom)."""
        left, top, right, bottom = box
        moved = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
        inside = None if self.inside is None else self.inside[top:bottom, left:right]
        return View(self.image[:, :, top:bottom, left:right], moved @ self.matrix, inside)

    def cut(self, area: int) -> View:
        """Keep the middle, of the same shape, of at most so many pixels."""
        height, width = self.size
        share = min(1.0, math.sqrt(area / (height * width)))
        high, wide = max(1, round(height * share)), max(1, round(width * share))
        left, top = (width - wide) // 2, (height - high) // 2
        return self.crop((left, top, left + wide, top + high))

    def shrink(self, side: int) -> View:
        """Reduce the longest side to `side` pixels, if it is longer."""
        height, width = self.size
        if max(height, width) <= side:
            return self
        small = [max(1, round(length * side / max(height, width))) for length in (height, width)]
        image = F.interpolate(self.image.float(), small, mode="bilinear", antialias=True)
        x, y = small[1] / width, small[0] / height
        resized = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        return View(image, resized @ self.matrix)

    def mirror(self) -> View:
        """Exchange left and right."""
        mirrored = np.array([[-1.0, 0, self.size[1] - 1], [0, 1, 0], [0, 0, 1]])
        inside = None if self.inside is None else self.inside.flip(1)
        return View(self.image.flip(3), mirrored @ self.matrix, inside)

    def turn(self, degrees: float) -> View:
        """Turn counter-clockwise; the view grows to hold all corners."""
        height, width = self.size
        quarters = round(degrees / 90)
        if abs(degrees - 90 * quarters) < 1e-6:
            turned = np.eye(3)
            for _ in range(quarters % 4):
                turned = np.array([[0.0, 1, 0], [-1, 0, width - 1], [0, 0, 1]]) @ turned
                height, width = width, height
            return View(self.image.rot90(quarters % 4, (2, 3)), turned @ self.matrix)
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        rotation = np.array([[cos, sin], [-sin, cos]])
        wide, high = np.ceil(np.abs(rotation) @ [width, height]).astype(int).tolist()
        turned = np.eye(3)
        turned[:2, :2] = rotation
        turned[:2, 2] = [(wide - 1) / 2, (high - 1) / 2] - rotation @ [
            (width - 1) / 2,
            (height - 1) / 2,
        ]
        y, x = torch.meshgrid(*(torch.arange(n, device="cpu") for n in (high, wide)), indexing="ij")
        points = transform_points(
            np.linalg.inv(turned), torch.stack([x, y], -1).float().view(-1, 2)
        )
        grid = (2 * points + 1) / torch.tensor([width, height], device="cpu") - 1
        grid = grid.view(1, high, wide, 2).to(self.image)
        image = F.grid_sample(self.image, grid, padding_mode="border", align_corners=False)
        return View(image, turned @ self.matrix, (grid[0].abs() <= 1).all(-1))

    def to_image(self, points: Tensor) -> Tensor:
        """Map points (x, y) of the view into the whole image."""
        return transform_points(np.linalg.inv(self.matrix), points)

    @property
    def magnification(self) -> float:
        """Pixels of the view per pixel of the image."""
        return float(abs(np.linalg.det(self.matrix[:2, :2])) ** 0.5)


def bounding_box(points: NDArray[Any], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Bound points with a margin; None where that is most of the image."""
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    margin = 0.15 * (high - low) + 8
    height, width = size
    left, top = np.clip(np.floor(low - margin), 0, [width - 1, height - 1]).astype(int).tolist()
    right, bottom = np.clip(np.ceil(high + margin) + 1, 1, [width, height]).astype(int).tolist()
    if (right - left) * (bottom - top) > 0.6 * height * width:
        return None
    return left, top, right, bottom


def transform_points(matrix: NDArray[Any], points: Tensor) -> Tensor:
    """Apply an affine matrix (3, 3) to points (x, y), shape (..., 2)."""
    affine = torch.from_numpy(matrix[:2]).float().to(points.device)
    return points @ affine[:, :2].T + affine[:, 2]


def similarity_at(matrix: NDArray[Any], points: Tensor) -> tuple[float, float]:
    """Read the scale of A against B, and the turn that brings B upright, where the points are."""
    x, y = points.double().mean(0).tolist()
    u, v, w = matrix @ [x, y, 1.0]
    jacobian = (matrix[:2, :2] - np.outer([u / w, v / w], matrix[2, :2])) / w
    turn = math.degrees(
        math.atan2(jacobian[1, 0] - jacobian[0, 1], jacobian[0, 0] + jacobian[1, 1])
    )
    return 1 / max(1e-6, abs(np.linalg.det(jacobian)) ** 0.5), turn
