"""Reading images of any kind, and fitting them to a model with the `Frame` that maps back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.types import Frame
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.utils.images import MAX_PIXELS, read_image, read_pil, unit_range
from kornia_ditf.utils.values import require

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageLike", "as_image", "check_size", "fit_image", "read_image", "squash_image"]

# What `as_image` takes; a string, so that nothing is imported for it.
ImageLike: TypeAlias = "str | os.PathLike[str] | Tensor | npt.NDArray[Any] | Image.Image"

MIN_SIDE = 8
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TOLERANCE = 1e-3


def as_image(value: ImageLike, *, upright: bool = True) -> Tensor:
    """Convert a path, PIL image, array or tensor to a batch of RGB images.

    Args:
        value: one of: a path; a PIL image, turned upright by its EXIF orientation as its file
            would be; an RGB array (H, W, 3) or a grey one (H, W), of uint8, uint16, or floats in
            [0, 1] (OpenCV reads BGR: `cv2.cvtColor(array, cv2.COLOR_BGR2RGB)` first); a float
            tensor in [0, 1] of shape (3, H, W), (1, H, W), (B, 3, H, W) or (B, 1, H, W).
        upright: apply the EXIF orientation of a file or PIL image; False keeps it as stored.

    Returns:
        images, shape (B, 3, H, W), RGB in [0, 1]; a tensor keeps its device, dtype and gradient,
        all else is float32 on the CPU.

    Raises:
        ImageError: a file or PIL image cannot be read.
        InvalidArgumentError: another type, shape, dtype or range, or NaN.

    Example:
        >>> as_image(torch.rand(1, 32, 48)).shape
        torch.Size([1, 3, 32, 48])
    """
    if isinstance(value, Tensor):
        return _from_tensor(value)
    if isinstance(value, np.ndarray):
        return _from_array(np.asarray(value))  # an np.matrix keeps two axes however it is indexed
    if isinstance(value, (str, os.PathLike)):
        return read_image(value, upright=upright)
    from PIL import Image

    if isinstance(value, Image.Image):
        return read_pil(value, upright=upright)
    raise InvalidArgumentError(
        f"an image must be a path, a tensor, an array or a PIL image, got {type(value).__name__}"
    )


def fit_image(image: Tensor, long_side: int | None, multiple: int) -> tuple[Tensor, Frame]:
    """Resize images so that the longest side is `long_side` and each side a multiple of `multiple`.

    The aspect is kept up to that rounding, which moves no side by more than half a multiple.
    Antialiased bicubic, computed in float32 and clamped to [0, 1]; differentiable. An image
    that already fits comes back as it is.

    Args:
        image: RGB in [0, 1], shape (B, 3, H, W).
        long_side: pixels of the longest side, itself rounded to a multiple; None keeps the
            size and only rounds.
        multiple: pixels per token.

    Returns:
        the fitted images, shape (B, 3, h, w), same dtype, and how pixels map between the two.

    Raises:
        ImageError: a side is below 8 pixels, or would be shorter than one token.
        InvalidArgumentError: a wrong shape or dtype, or a size that is not a positive integer.

    Example:
        >>> fitted, frame = fit_image(torch.rand(1, 3, 480, 640), long_side=320, multiple=16)
        >>> fitted.shape, frame.model_size
        (torch.Size([1, 3, 240, 320]), (240, 320))
    """
    _check_image(image)
    target = fitted_size((image.shape[2], image.shape[3]), long_side, multiple)
    return _resize(image, target)


def squash_image(image: Tensor, size: tuple[int, int], multiple: int = 1) -> tuple[Tensor, Frame]:
    """Scale images to a size, whatever their aspect; the frame undoes it.

    Resampling as in `fit_image`.

    Args:
        image: RGB in [0, 1], shape (B, 3, H, W).
        size: height and width that the model is to see, in pixels.
        multiple: what both must be multiples of.

    Returns:
        the images, shape (B, 3, *size), same dtype, and how pixels map between the two.

    Raises:
        ImageError: a side of the image is below 8 pixels.
        InvalidArgumentError: a wrong shape or dtype, or a size that is none or does not fit.

    Example:
        >>> squashed, frame = squash_image(torch.rand(1, 3, 48, 64), (32, 32))
        >>> frame.to_model(torch.tensor([[31.5, 23.5]]))
        tensor([[15.5000, 15.5000]])
    """
    _check_image(image)
    check_size(size, multiple)
    _check_sides((image.shape[2], image.shape[3]))
    return _resize(image, (int(size[0]), int(size[1])))


def check_size(size: object, multiple: int = 1) -> None:
    """Raise InvalidArgumentError unless a size is (height, width) that `squash_image` takes."""
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise InvalidArgumentError(f"size must be (height, width), got {size!r}")
    for side in size:
        check_integer("a side of size", side, minimum=1)
    height, width = size
    if height % multiple or width % multiple or height * width > MAX_PIXELS:
        raise InvalidArgumentError(
            f"size must hold multiples of {multiple}, and at most {MAX_PIXELS:,} pixels in all, "
            f"got {size!r}"
        )


def _resize(image: Tensor, target: tuple[int, int]) -> tuple[Tensor, Frame]:
    size = (image.shape[2], image.shape[3])
    frame = Frame(image_size=size, model_size=target)
    if target == size:
        return image, frame
    scaled = F.interpolate(
        image.float(), target, mode="bicubic", align_corners=False, antialias=True
    )
    return scaled.clamp(0, 1).to(image.dtype), frame


def _check_image(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise InvalidArgumentError(
            f"image must be a float tensor of shape (B, 3, H, W), got {tuple(image.shape)} "
            f"of {_dtype_name(image)}: use as_image"
        )


def _check_sides(size: tuple[int, int]) -> None:
    if min(size) < MIN_SIDE:
        raise ImageError(
            f"an image of {size[1]} x {size[0]} pixels is too small: "
            f"each side needs at least {MIN_SIDE} pixels"
        )


def fitted_size(size: tuple[int, int], long_side: int | None, multiple: int) -> tuple[int, int]:
    """Return the height and width to which `fit_image` scales; arguments and errors as there."""
    check_integer("multiple", multiple, minimum=1)
    if long_side is not None:
        check_integer("long_side", long_side, minimum=1)
        if long_side < multiple:
            raise InvalidArgumentError(
                f"long_side must be at least one token ({multiple} pixels), got {long_side}"
            )
    height, width = size
    _check_sides(size)
    longest = max(size)
    if long_side is not None and long_side * (long_side * min(size) // longest) > MAX_PIXELS:
        raise InvalidArgumentError(
            f"long_side must leave an image below {MAX_PIXELS:,} pixels, got {long_side}"
        )
    target = longest if long_side is None else _round_to(long_side, 1, multiple)
    if min(size) * target < multiple * longest:
        raise ImageError(
            f"an image of {width} x {height} pixels is too thin or too small: at a long side of "
            f"{target} its short side would fall below one token ({multiple} pixels), so crop it "
            "or choose a larger long side"
        )
    return (
        _round_to(height * target, longest, multiple),
        _round_to(width * target, longest, multiple),
    )


def _round_to(numerator: int, denominator: int, multiple: int) -> int:
    # In whole numbers: halves go up, whatever a float would make of them.
    step = denominator * multiple
    return (2 * numerator + step) // (2 * step) * multiple


def _from_array(array: npt.NDArray[Any]) -> Tensor:
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3):
            hint = ": move the channels last with array.transpose(1, 2, 0)"
        elif array.ndim == 3 and array.shape[2] == 4:
            hint = ": drop the fourth channel with array[..., :3]"
        raise InvalidArgumentError(
            f"an image array must have the shape (H, W, 3) or (H, W), got {array.shape}{hint}"
        )
    if array.dtype in (np.uint8, np.uint16):
        return unit_range(pixels)
    if array.dtype.kind != "f":
        raise InvalidArgumentError(
            f"an image array must be of uint8, uint16 or floats in [0, 1], got {array.dtype}"
        )
    return _from_tensor(torch.from_numpy(pixels.astype(np.float32, order="C")).permute(2, 0, 1))


def _from_tensor(tensor: Tensor) -> Tensor:
    image = tensor[None] if tensor.ndim == 3 else tensor
    if image.ndim != 4 or image.shape[1] not in (1, 3) or image.numel() == 0:
        hint = ""
        if image.ndim == 4 and image.shape[1] == 4:
            hint = ": drop the fourth channel with image[:, :3]"
        elif image.ndim == 4 and image.shape[3] in (1, 3):
            hint = ": move the channels first with image.movedim(-1, -3)"
        raise InvalidArgumentError(
            "an image tensor must have the shape (3, H, W), (B, 3, H, W) or (B, 1, H, W), "
            f"got {tuple(tensor.shape)}{hint}"
        )
    if tensor.dtype not in _DTYPES:
        hint = ": divide by 255" if tensor.dtype == torch.uint8 else ""
        raise InvalidArgumentError(
            f"an image tensor must hold floats in [0, 1], got {_dtype_name(tensor)}{hint}"
        )
    low, high = torch.aminmax(image.detach())  # which pass NaN on
    within = (low >= -_TOLERANCE) & (high <= 1 + _TOLERANCE)
    require(within, lambda: _range_error(float(low), float(high)))
    return image.expand(-1, 3, -1, -1)


def _range_error(low: float, high: float) -> InvalidArgumentError:
    if not np.isfinite([low, high]).all():
        return InvalidArgumentError("an image must be finite, got NaN or infinity among its values")
    hint = ""
    if low >= -_TOLERANCE and 2 < high <= 255:
        hint = ", which looks like 0 to 255: divide by 255"
    elif low >= -1 - _TOLERANCE and high <= 1 + _TOLERANCE:
        hint = ", which looks like -1 to 1: use (image + 1) / 2"
    return InvalidArgumentError(
        f"an image must lie in [0, 1], got values from {low:.4g} to {high:.4g}{hint}"
    )


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
