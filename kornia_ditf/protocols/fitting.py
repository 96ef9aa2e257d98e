"""Fitting images as published evaluations do before they are described."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.protocols.protocol import Fit, Protocol


def prepare_image(image: ImageLike, protocol: Protocol | Fit) -> Tensor:
    """Resize an image as a protocol requires.

    Scaling is done by the library that the authors use, on 8 bits, so that it rounds as theirs.
    Describe the result with a descriptor that does not scale it again (`long_side=None`).

    Args:
        image: as in `as_image`, one image.
        protocol: a protocol, or its `fit`.

    Returns:
        the image, shape (1, 3, h, w), RGB in [0, 1].

    Raises:
        ImageError: a file cannot be read.
        InvalidArgumentError: not one image.

    Example:
        >>> from kornia_ditf.protocols.presets import find_protocol
        >>> prepare_image(torch.rand(3, 40, 60), find_protocol("dift-spair")).shape
        torch.Size([1, 3, 768, 768])
    """
    fit = protocol.fit if isinstance(protocol, Protocol) else protocol
    whole = as_image(image, upright=fit.upright)[:1]
    if fit.kind == "whole":
        return whole
    pixels = whole[0].permute(1, 2, 0).cpu().float().mul(255).round().clamp(0, 255)
    scaled = _scale(pixels.to(torch.uint8).numpy(), fit)
    return torch.from_numpy(scaled).permute(2, 0, 1)[None].float().div(255).contiguous()


def _scale(array: npt.NDArray[Any], fit: Fit) -> npt.NDArray[Any]:
    import cv2
    from PIL import Image

    height, width = fitted_size(array.shape[:2], fit)
    if fit.kind == "short-side":
        return np.asarray(cv2.resize(array, (width, height)))
    how = Image.Resampling.LANCZOS if fit.kind == "pad" else Image.Resampling.BICUBIC
    scaled = np.array(Image.fromarray(array).resize((width, height), how))
    if fit.kind != "pad":
        return scaled
    canvas = np.zeros((fit.side, fit.side, 3), np.uint8)
    top, left = (fit.side - height) // 2, (fit.side - width) // 2
    canvas[top : top + height, left : left + width] = scaled
    return canvas


def padded_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the height and width of an image inside a padded square."""
    height, width = size
    if height <= width:
        return int(np.around(side * height / width)), side
    return side, int(np.around(side * width / height))


def fitted_size(size: tuple[int, int], fit: Fit) -> tuple[int, int]:
    """Return the height and width at which a fitted image is seen, without padding.

    Example:
        >>> fitted_size((968, 1296), Fit(kind="long-side", side=640, multiple=16))
        (480, 640)
    """
    scale = fit.side / max(size)
    match fit.kind:
        case "whole":
            return size
        case "squash":
            return fit.side, fit.side
        case "pad":
            return padded_size(size, fit.side)
        case "short-side":
            height, width = size
            if height > width:
                return int((fit.side * height / width) // fit.multiple * fit.multiple), fit.side
            return fit.side, int((fit.side * width / height) // fit.multiple * fit.multiple)
    # Python's round, as DiTF's script has it: halves go to even numbers.
    height, width = (round(side * scale / fit.multiple) * fit.multiple for side in size)
    return max(height, fit.multiple), max(width, fit.multiple)
