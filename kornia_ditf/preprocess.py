"""A file, an array or a picture goes in; an image fitted to the model and its `Frame` come out."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.types import Frame

if TYPE_CHECKING:
    from PIL import Image

# What `as_image` takes; a string, so that nothing is imported for it.
ImageLike: TypeAlias = "str | os.PathLike[str] | Tensor | npt.NDArray[Any] | Image.Image"

# The largest telephone photographs. Pillow itself refuses what is above twice its MAX_IMAGE_PIXELS.
MAX_PIXELS = 200_000_000
MIN_SIDE = 8

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
_EXPECTED = "a JPEG, PNG, TIFF, WebP, BMP, GIF or PPM image"
_TOLERANCE = 1e-3
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"

# EXIF orientation -> whether rows and columns swap, and which axes are then reversed.
_ORIENTATIONS: dict[int, tuple[bool, tuple[int, ...]]] = {
    1: (False, ()),
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read one image file, upright, as RGB.

    The EXIF orientation is applied, and points are given in this upright image. Transparent
    pixels lie on white. Grey becomes three equal channels; 16 bits are kept in grey and colour
    PNG and TIFF. CMYK is converted without a colour profile, and no embedded profile is applied.

    Args:
        path: a JPEG, PNG, TIFF, WebP, BMP, GIF or PPM file that holds a single picture.

    Returns:
        the image, shape (1, 3, H, W), float32, RGB in [0, 1].

    Raises:
        ImageError: the file is missing, empty, no image, damaged, cut short, animated, of
            several pages, or larger than `MAX_PIXELS`; the size is read before any pixel.
    """
    path = _existing_file(path)
    try:
        # Pillow warns of large pictures and odd metadata; what matters is an error below.
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _unit_range(_decode(path, stream))
    except ImageError:
        raise
    except Exception as error:  # Decoders raise anything from OSError to struct.error.
        raise ImageError(_explain(path, error)) from error


def as_image(value: ImageLike) -> Tensor:
    """Turn whatever holds an image into a batch of RGB images.

    Args:
        value: one of: a path; a PIL image, turned upright by its EXIF orientation as its file
            would be; an RGB array (H, W, 3) or a grey one (H, W), of uint8, uint16, or floats in
            [0, 1] (OpenCV reads BGR: `cv2.cvtColor(array, cv2.COLOR_BGR2RGB)` first); a float
            tensor in [0, 1] of shape (3, H, W), (1, H, W), (B, 3, H, W) or (B, 1, H, W).

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
        return _from_array(value)
    if isinstance(value, (str, os.PathLike)):
        return read_image(value)
    from PIL import Image

    if isinstance(value, Image.Image):
        return _from_pil(value)
    raise InvalidArgumentError(
        f"an image must be a path, a tensor, an array or a PIL image, got {type(value).__name__}"
    )


def fit_image(image: Tensor, long_side: int | None, multiple: int) -> tuple[Tensor, Frame]:
    """Scale images so that the longest side is `long_side` and each side a multiple.

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
        InvalidArgumentError: a wrong shape or dtype, or a size that is no positive integer.

    Example:
        >>> fitted, frame = fit_image(torch.rand(1, 3, 480, 640), long_side=320, multiple=16)
        >>> fitted.shape, frame.model_size
        (torch.Size([1, 3, 240, 320]), (240, 320))
    """
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise InvalidArgumentError(
            f"image must be a float tensor of shape (B, 3, H, W), got {tuple(image.shape)} "
            f"of {_dtype_name(image)}: use as_image"
        )
    size = (image.shape[2], image.shape[3])
    target = _fitted_size(size, long_side, multiple)
    frame = Frame(image_size=size, model_size=target)
    if target == size:
        return image, frame
    scaled = F.interpolate(
        image.float(), target, mode="bicubic", align_corners=False, antialias=True
    )
    return scaled.clamp(0, 1).to(image.dtype), frame


def _fitted_size(size: tuple[int, int], long_side: int | None, multiple: int) -> tuple[int, int]:
    for name, value in (("long_side", long_side), ("multiple", multiple)):
        if name == "long_side" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidArgumentError(f"{name} must be a positive integer, got {value!r}")
    if long_side is not None and long_side < multiple:
        raise InvalidArgumentError(
            f"long_side must be at least one token ({multiple} pixels), got {long_side}"
        )
    height, width = size
    if min(size) < MIN_SIDE:
        raise ImageError(
            f"an image of {width} x {height} pixels is too small: "
            f"each side needs at least {MIN_SIDE} pixels"
        )
    longest = max(size)
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


def _existing_file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError(f"cannot read {path}: it is a folder, expected {_EXPECTED}")
        if not path.exists():
            raise ImageError(f"cannot read {path}: there is no such file")
        if not path.is_file():
            raise ImageError(f"cannot read {path}: it is not a regular file")
        if path.stat().st_size == 0:
            raise ImageError(f"cannot read {path}: the file is empty, expected {_EXPECTED}")
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(_explain(path, error)) from error
    return path


def _explain(path: Path, error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return (
            f"cannot read {path}: it is no image, or its beginning is damaged; expected {_EXPECTED}"
        )
    if isinstance(error, Image.DecompressionBombError):
        limit = min(MAX_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
        return f"cannot read {path}: it has more than {limit:,} pixels, so shrink it first"
    if isinstance(error, PermissionError):
        return f"cannot read {path}: you lack the permission to read it"
    return f"cannot read {path}: the image is damaged or cut short ({error}); get the file anew"


def _decode(path: Path, stream: IO[bytes]) -> npt.NDArray[Any]:
    """Decode an open file into an upright array (H, W, 1 to 4) of uint8 or uint16."""
    from PIL import Image

    image = Image.open(stream, formats=_FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"cannot read {path}: {width} x {height} are more than {MAX_PIXELS:,} pixels, "
            "so shrink it first"
        )
    frames = getattr(image, "n_frames", 1)
    # An MPO is a JPEG photograph followed by previews or depth, as many telephones write it.
    if frames > 1 and image.format != "MPO":
        raise ImageError(f"cannot read {path}: it has {frames} frames or pages, so extract one")
    _check_whole(path, image, stream)
    # Pillow reduces 16-bit colour to 8 bits. It still decodes, as it notices damage best.
    codings = str([tile.args for tile in image.tile])
    deep_colour = image.mode in ("LA", "RGB", "RGBA") and ";16" in codings
    is_tiff = image.format == "TIFF"
    pixels, orientation = _pil_pixels(image, str(path))
    if not deep_colour:
        return _upright(pixels, orientation)
    # OpenCV turns a TIFF upright itself, and a PNG not.
    return _upright(_read_deep_colour(path, stream), 1 if is_tiff else orientation)


def _read_deep_colour(path: Path, stream: IO[bytes]) -> npt.NDArray[Any]:
    import cv2

    stream.seek(0)
    content = np.frombuffer(stream.read(), np.uint8)
    array = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16 or array.ndim != 3:
        raise ImageError(
            f"cannot read {path}: this kind of 16-bit file is not known, so save it as a 16-bit PNG"
        )
    return array[..., [2, 1, 0, *range(3, array.shape[2])]]


def _check_whole(path: Path, image: Image.Image, stream: IO[bytes]) -> None:
    """Refuse a file that ends too early, even where a decoder would fill up the rest."""
    from PIL import Image, TiffImagePlugin

    stream.seek(0)
    whole = True
    if image.format == "PNG":
        Image.open(stream, formats=("PNG",)).verify()  # the checksums of all chunks but the last
        stream.seek(0)
        whole = _END_OF_PNG in stream.read()
    elif image.format in ("JPEG", "MPO"):
        whole = _has_end_of_jpeg(stream.read())
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        offsets = tags.get(273) or tags.get(324) or ()
        lengths = tags.get(279) or tags.get(325) or ()
        size = path.stat().st_size
        whole = all(start + length <= size for start, length in zip(offsets, lengths, strict=True))
    if not whole:
        raise ImageError(f"cannot read {path}: the image is cut short; get the file anew")


def _has_end_of_jpeg(content: bytes) -> bool:
    # The header may hold a preview with an end of its own, so step over it by segment lengths;
    # in the coded pixels that follow, FF D9 can only be the end.
    position = 2
    while content[position : position + 1] == b"\xff" and position + 4 <= len(content):
        marker = content[position + 1]
        if marker == 0xDA:
            return b"\xff\xd9" in content[position:]
        if marker == 0xFF:  # a filling byte
            position += 1
            continue
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return False


def _pil_pixels(image: Image.Image, name: str) -> tuple[npt.NDArray[Any], int]:
    """Give pixels (H, W, 1 to 4) of uint8 or uint16, and the orientation still to be applied."""
    image.load()
    # After loading, since Pillow turns a TIFF upright by then and forgets its orientation.
    orientation = image.getexif().get(0x0112, 1)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        if getattr(image, "tag_v2", {}).get(262) == 0:
            raise ImageError(
                f"cannot read {name}: its 16-bit grey is inverted, so save it as a PNG"
            )
        return np.asarray(image).astype(np.uint16)[..., None], orientation
    if image.mode in ("I", "F"):
        raise ImageError(
            f"cannot read {name}: it holds 32-bit numbers whose white is not known, "
            "so save it with 8 or 16 bits per channel"
        )
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return np.asarray(image.convert(mode)), orientation


def _upright(array: npt.NDArray[Any], orientation: Any) -> npt.NDArray[Any]:
    swapped, reversed_axes = _ORIENTATIONS.get(orientation, _ORIENTATIONS[1])
    return np.flip(array.swapaxes(0, 1) if swapped else array, reversed_axes)


def _unit_range(array: npt.NDArray[Any]) -> Tensor:
    """Scale (H, W, 1 to 4) of uint8 or uint16 to (1, 3, H, W) in [0, 1], laid on white."""
    white = np.iinfo(array.dtype).max
    channels_last = torch.from_numpy(array.astype(np.float32, order="C"))
    image = channels_last.div_(white).permute(2, 0, 1)[None]
    if image.shape[1] in (2, 4):
        alpha = image[:, -1:]
        image = image[:, :-1] * alpha + (1 - alpha)
    return image.expand(-1, 3, -1, -1).contiguous()


def _from_pil(image: Image.Image) -> Tensor:
    name = getattr(image, "filename", "") or "the PIL image"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _unit_range(_upright(*_pil_pixels(image, str(name))))
    except ImageError:
        raise
    except Exception as error:  # A lazily opened file is only decoded here.
        raise ImageError(_explain(Path(name), error)) from error


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
        return _unit_range(pixels)
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
    if not tensor.is_floating_point():
        hint = ": divide by 255" if tensor.dtype == torch.uint8 else ""
        raise InvalidArgumentError(
            f"an image tensor must hold floats in [0, 1], got {_dtype_name(tensor)}{hint}"
        )
    _check_values(image.detach())
    return image.expand(-1, 3, -1, -1)


def _check_values(image: Tensor) -> None:
    low, high = (bound.item() for bound in torch.aminmax(image))
    if not np.isfinite([low, high]).all():  # aminmax passes NaN on
        raise InvalidArgumentError("an image must be finite, got NaN or infinity among its values")
    if low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
        return
    hint = ""
    if low >= -_TOLERANCE and 2 < high <= 255:
        hint = ", which looks like 0 to 255: divide by 255"
    elif low >= -1 - _TOLERANCE and high <= 1 + _TOLERANCE:
        hint = ", which looks like -1 to 1: use (image + 1) / 2"
    raise InvalidArgumentError(
        f"an image must lie in [0, 1], got values from {low:.4g} to {high:.4g}{hint}"
    )


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
