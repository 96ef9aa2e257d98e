"""An image file or a PIL image goes in; an upright RGB tensor comes out, or one clear error."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

# Below Pillow's own limit (178,956,970), which is a setting of the process and not ours to move.
MAX_PIXELS = 175_000_000
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
_EXPECTED = "a JPEG, PNG, TIFF, WebP, BMP, GIF or PPM image"
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
            return unit_range(_decode(path, stream))
    except ImageError:
        raise
    except Exception as error:  # Decoders raise anything from OSError to struct.error.
        raise ImageError(_explain(path, error)) from error


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read the height and width of an image file, upright, from its header alone.

    Raises:
        ImageError: the file is missing, empty or no image.
    """
    from PIL import Image

    path = _existing_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                orientation = image.getexif().get(0x0112, 1)
                swapped, _ = _ORIENTATIONS.get(orientation, _ORIENTATIONS[1])
                return image.size if swapped else image.size[::-1]
    except Exception as error:  # As in `read_image`.
        raise ImageError(_explain(path, error)) from error


def read_pil(image: Image.Image) -> Tensor:
    """Turn a PIL image into a tensor just as `read_image` does its file, upright.

    Returns:
        the image, shape (1, 3, H, W), float32, RGB in [0, 1].

    Raises:
        ImageError: it cannot be decoded, or its colours have no known range.
    """
    name = getattr(image, "filename", "") or "the PIL image"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return unit_range(_upright(*_pil_pixels(image, str(name))))
    except ImageError:
        raise
    except Exception as error:  # A lazily opened file is only decoded here.
        raise ImageError(_explain(Path(name), error)) from error


def unit_range(array: npt.NDArray[Any]) -> Tensor:
    """Scale (H, W, 1 to 4) of uint8 or uint16 to (1, 3, H, W) in [0, 1], laid on white."""
    white = np.iinfo(array.dtype).max
    channels_last = torch.from_numpy(array.astype(np.float32, order="C"))
    image = channels_last.div_(white).permute(2, 0, 1)[None]
    if image.shape[1] in (2, 4):
        alpha = image[:, -1:]
        image = image[:, :-1] * alpha + (1 - alpha)
    return image.expand(-1, 3, -1, -1).contiguous()


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
