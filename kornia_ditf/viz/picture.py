"""Images as pictures, and values as colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.utils.picture import Picture

_DPI = 110
INK = (40, 40, 40)
SUBPIXEL_BITS = 4  # OpenCV draws at whole numbers of 1/16 px


def as_picture(image: ImageLike) -> Picture:
    """Convert one image, as `as_image` takes it, to a picture."""
    batch = as_image(image)
    if len(batch) != 1:
        raise InvalidArgumentError(f"draw on one image, got a batch of {len(batch)} images")
    pixels = (batch[0].detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Picture.of(pixels.permute(1, 2, 0).cpu().numpy())


def shrink(picture: npt.NDArray[np.uint8], long_side: int) -> Picture:
    """Reduce a picture's longest side to `long_side` pixels, if it is longer."""
    import cv2

    height, width = picture.shape[:2]
    zoom = long_side / max(height, width)
    if zoom >= 1:
        return Picture.of(picture)
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    return Picture.of(cv2.resize(np.asarray(picture), size, interpolation=cv2.INTER_AREA))


def stretch(
    values: npt.NDArray[np.float32], limits: tuple[float, float] | None = None
) -> npt.NDArray[np.float32]:
    """Map values to [0, 1], by default their lowest to 0 and their highest to 1."""
    if values.size == 0:
        return values
    low, high = limits or (float(values.min()), float(values.max()))
    if high <= low:
        return np.ones_like(values)
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), np.float32)


def map_colours(values: npt.NDArray[np.float32], colormap: int) -> Picture:
    """Colours of values in [0, 1] by one of OpenCV's colour maps."""
    import cv2

    if values.size == 0:
        return Picture.of(np.zeros((*values.shape, 3)))
    mapped = cv2.applyColorMap((values * 255).round().astype(np.uint8), colormap)
    return Picture.of(mapped[..., ::-1])


def to_grey(picture: npt.NDArray[np.uint8]) -> Picture:
    """Convert a picture to grey; it keeps three channels."""
    import cv2

    return Picture.of(cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def draw_dot(
    canvas: Picture, centre: Sequence[float], radius: float, colour: tuple[int, int, int]
) -> None:
    """Draw a filled disc at a point (x, y), to a 16th of a pixel."""
    import cv2

    size = round(radius * 2**SUBPIXEL_BITS)
    cv2.circle(canvas, to_subpixels(centre), size, colour, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


def to_subpixels(point: Sequence[float]) -> tuple[int, int]:
    """Convert a point (x, y) to the numbers by which OpenCV draws between pixels."""
    x, y = (round(coordinate * 2**SUBPIXEL_BITS) for coordinate in point)
    return x, y


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """Create a Matplotlib figure of a size in inches, and its canvas for `figure_pixels`."""
    # Without pyplot, which keeps figures and a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    return figure, FigureCanvasAgg(figure)


def figure_pixels(canvas: Any) -> Picture:
    """Draw a figure's canvas."""
    canvas.draw()
    return Picture.of(np.asarray(canvas.buffer_rgba())[..., :3])
