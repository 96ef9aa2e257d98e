"""Functions that upsample features: bilinear, joint bilateral, and modules of other packages.

Each takes the image (B, 3, H, W) in [0, 1], its features (B, D, rows, columns) and the size
(rows, columns) of the result; all three cover the same area. The result has the features' dtype.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.errors import InvalidArgumentError

Upsampling = Callable[[Tensor, Tensor, tuple[int, int]], Tensor]

WORKING_BYTES = 256_000_000
"""What a filter holds at a time beside its result: it works through the channels in parts."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_STEP, _SIGMA_SPACE = 4, 0.5
_CHUNKED_VALUES = 2**24


def bilinear(image: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate between tokens' centres (align_corners=False); the image is not looked at."""
    return _by_channels(features, size, lambda part: resize(part, size), copies=2)


def joint_bilateral(
    image: Tensor, features: Tensor, size: tuple[int, int], sigma_color: float = 0.3
) -> Tensor:
    """Upsample so that features change where the image does.

    Every pixel of the result is the mean of the tokens around it, weighted by their distance
    (sigma of half a token) and by how alike the image's colours are: joint bilateral upsampling
    (Kopf et al., SIGGRAPH 2007), by `kornia.filters.joint_bilateral_blur`. More than four times are
    reached in several steps, as FeatUp stacks them (Fu et al., ICLR 2024).

    Args:
        image: RGB in [0, 1], shape (B, 3, H, W).
        features: shape (B, D, rows, columns).
        size: rows and columns of the result.
        sigma_color: the difference of colours, summed over RGB, that still counts as alike.
    """
    from kornia.filters import joint_bilateral_blur

    grids = [tuple(features.shape[2:])]
    while grids[-1] != size:
        pairs = zip(grids[-1], size, strict=True)
        grids.append(tuple(min(_STEP * side, end) for side, end in pairs))
    guides = [resize(image, grid) for grid in grids[1:]]

    def filtered(part: Tensor) -> Tensor:
        for grid, guide in zip(grids[1:], guides, strict=True):
            y, x = (new / old for new, old in zip(grid, part.shape[2:], strict=True))
            part = joint_bilateral_blur(
                F.interpolate(part, grid, mode="nearest-exact"),
                guide,
                (2 * math.ceil(y) + 1, 2 * math.ceil(x) + 1),
                sigma_color,
                (_SIGMA_SPACE * y, _SIGMA_SPACE * x),
                border_type="replicate",
            )
        return part

    return _by_channels(features, size, filtered, copies=(2 * _STEP + 1) ** 2 + 4)


def adapt_module(
    module: nn.Module, mean: Sequence[float] = _MEAN, std: Sequence[float] = _STD
) -> Upsampling:
    """Create an upsampling function from a module such as AnyUp's or FeatUp's.

    Args:
        module: called with the image, normalised, and the features, in the dtype of its weights.
            With a parameter `output_size` it is given the size of the result; without one, the
            image is resized to it first. It is neither moved nor put into another mode.
        mean: of the colours, subtracted from the image.
        std: what the image is divided by.

    Raises:
        InvalidArgumentError: when called, if the module returns another shape.
    """
    parameters = inspect.signature(module.forward).parameters

    def upsample(image: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
        options: dict[str, Any] = {}
        if "output_size" in parameters:
            options["output_size"] = size
        else:
            image = resize(image, size)
        if "q_chunk_size" in parameters:  # queries of AnyUp's attention, each to all tokens
            options["q_chunk_size"] = max(1, _CHUNKED_VALUES // math.prod(features.shape[2:]))
        shift, scale = (image.new_tensor(each).view(3, 1, 1) for each in (mean, std))
        dtype = next((p.dtype for p in module.parameters()), torch.float32)
        found = module(((image - shift) / scale).to(dtype), features.to(dtype), **options)
        wanted = (*features.shape[:2], *size)
        if not isinstance(found, Tensor) or tuple(found.shape) != wanted:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InvalidArgumentError(
                f"{type(module).__name__} was asked for features of shape {wanted} and returned "
                f"{got}; a module that always enlarges as much needs just that factor"
            )
        return found.to(features.dtype)

    return upsample


def resize(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize images or features (B, C, H, W) bilinearly, without aliasing where they shrink."""
    if tuple(values.shape[2:]) == tuple(size):
        return values
    smaller = size[0] < values.shape[2] or size[1] < values.shape[3]
    return F.interpolate(values, size, mode="bilinear", align_corners=False, antialias=smaller)


def _by_channels(
    features: Tensor, size: tuple[int, int], function: Callable[[Tensor], Tensor], copies: int
) -> Tensor:
    """Apply a function to some channels at a time, in float32; it holds `copies` of them."""
    count = max(1, WORKING_BYTES // (4 * len(features) * math.prod(size) * copies))
    found = features.new_empty(*features.shape[:2], *size)
    for start in range(0, features.shape[1], count):
        part = slice(start, start + count)
        found[:, part] = function(features[:, part].float())
    return found
