"""How pixels of an image map to those that a model saw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kornia_ditf.utils.precision import widen


@dataclass(frozen=True, slots=True)
class Frame:
    """Mapping from the pixels of an image to those of the resized copy that the model receives.

    Both pictures cover the same area, so a pixel's edges map linearly and its centre with them.

    Args:
        image_size: height and width of the image, upright, in pixels.
        model_size: height and width of the image after fitting, in pixels.

    Example:
        >>> frame = Frame(image_size=(480, 640), model_size=(240, 320))
        >>> frame.to_model(torch.tensor([[0.5, 0.5]]))
        tensor([[0., 0.]])
    """

    image_size: tuple[int, int]
    model_size: tuple[int, int]

    def to_model(self, points: Tensor) -> Tensor:
        """Map points (x, y) of the image, shape (..., 2), into the fitted image."""
        return _rescale(points, self.image_size, self.model_size)

    def to_image(self, points: Tensor) -> Tensor:
        """Map points (x, y) of the fitted image, shape (..., 2), back into the image."""
        return _rescale(points, self.model_size, self.image_size)


def grid_centres(size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return the centres (x, y) of a grid's cells in pixels, row by row, (rows * columns, 2).

    Args:
        size: height and width of the image that the grid divides.
        grid: rows and columns.
    """
    y, x = (
        (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) * (side / count) - 0.5
        for side, count in zip(size, grid, strict=True)
    )
    return torch.cartesian_prod(y, x).flip(1)


def _rescale(points: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    # In float64 the way there and back stays below a thousandth of a pixel.
    wide = widen(points)
    ratio = wide.new_tensor([target[1] / source[1], target[0] / source[0]])
    return ((wide + 0.5) * ratio - 0.5).to(torch.promote_types(points.dtype, torch.float32))
