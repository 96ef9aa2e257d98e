"""Reading image files and PIL images as upright RGB tensors."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.errors import DiTFError, ImageError
from kornia_ditf.utils.extras import import_extra
from kornia_ditf.utils.isolation import quiet
from kornia_ditf.utils.jpeg import count_scans

if TYPE_CHECKING:
    from PIL import Image

Pixels: TypeAlias = npt.NDArray[Any]

# Below Pillow's own limit (178,956,970), which is a setting of the process and not ours to move.
MAX_PIXELS = 175_000_000
_MAX_SCANS = 100
"""A progressive JPEG has about ten scans; each costs a pass over the whole image."""
_STRIP = 1 << 18
"""Pixels converted at a time."""
_ORIENTATION = 0x0112
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
_EXPECTED = "a JPEG, PNG, TIFF, WebP, BMP, GIF, PPM, AVIF, JPEG 2000 or HEIC image"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = (b"IHDR", b"eXIf", b"iTXt", b"tEXt", b"zTXt")
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_FEATURES = {"AVIF": "avif", "JPEG2000": "jpg_2000"}

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
_UNDONE_BY = {6: 8, 8: 6}


def read_image(path: str | os.PathLike[str], *, upright: bool = True) -> Tensor:
    """Read an image file as RGB.

    Transparent pixels are laid on white. A grey image has three equal channels; 16 bits are kept
    in grey and colour PNG and TIFF. CMYK is converted without a colour profile, and embedded
    profiles are not applied. HEIC needs `pip install 'kornia-ditf[heic]'`; AVIF and JPEG 2000 need
    a Pillow that was built with them.

    Args:
        path: a JPEG, PNG, TIFF, WebP, BMP, GIF, PPM, AVIF, JPEG 2000 or HEIC file of one image.
        upright: apply the EXIF orientation; False keeps rows and columns as they are stored, as
            the scripts of many published data sets do.

    Returns:
        the image, shape (1, 3, H, W), float32, RGB in [0, 1].

    Raises:
        ImageError: the file is missing, empty, not an image, damaged, cut short, animated, of
            several pages, or larger than `MAX_PIXELS`; the size is read before any pixel.
        MissingExtraError: it is a HEIC image and pillow-heif is not installed.
    """
    return decode_image(read_bytes(path), path, upright=upright)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read an image file undecoded, with the errors of `read_image`."""
    with _opened(Path(path)) as stream:
        return stream.read()


def decode_image(content: bytes, name: str | os.PathLike[str], *, upright: bool = True) -> Tensor:
    """Decode the content of an image file, which errors call `name`, as `read_image` does."""
    path, stream = Path(name), BytesIO(content)
    with _as_image_error(path):
        image = _open(path, stream)
        _check(image, stream)
        orientation, stored = _orientation(image, stream), _stored_size(image)
        turned = image.format == "TIFF"  # Pillow turns it while it decodes.
        codings = str(getattr(image, "tile", ()))
        if image.mode in ("LA", "RGB", "RGBA") and ";16" in codings:
            turned = turned and _ORIENTATION in image.tag_v2  # type: ignore[attr-defined]
            image.load()  # Pillow reduces 16 bits to 8, but notices damage that OpenCV does not.
            image.close()
            strips, size = _deep_strips(content)
        else:
            if image.format in ("WEBP", "AVIF"):
                image = image.copy()  # without the decoder and its buffers
            strips, size = _strips(image), image.size[::-1]
        if sorted(size) != sorted(stored):
            raise _UnreadableError(
                f"its size is not {stored[0]} x {stored[1]}, which its header states"
            )
        if turned:
            orientation = 1 if upright else _UNDONE_BY.get(orientation, orientation)
        return _to_tensor(strips, size, orientation if turned or upright else 1)


def read_size(path: str | os.PathLike[str], *, upright: bool = True) -> tuple[int, int]:
    """Read the height and width of an image file from its header alone.

    Args:
        path: as in `read_image`.
        upright: apply the EXIF orientation, as in `read_image`.

    Raises:
        ImageError: the file is missing, empty or not an image.
        MissingExtraError: it is a HEIC image and pillow-heif is not installed.
    """
    path = Path(path)
    with _opened(path) as stream:
        image = _open(path, stream)
        width, height = _stored_size(image)
        swapped = upright and _ORIENTATIONS[_orientation(image, stream)][0]
        return (width, height) if swapped else (height, width)


def read_pil(image: Image.Image, *, upright: bool = True) -> Tensor:
    """Convert a PIL image as `read_image` reads its file.

    Args:
        image: of any mode with a known range.
        upright: apply the EXIF orientation that it still has.

    Returns:
        the image, shape (1, 3, H, W), float32, RGB in [0, 1].

    Raises:
        ImageError: it cannot be decoded, or its colours have no known range.
    """
    name = Path(getattr(image, "filename", "") or "the PIL image")
    with _as_image_error(name):
        image.load()
        # After loading, since Pillow turns a TIFF upright by then and removes its orientation.
        orientation = _exif_orientation(image) if upright else 1
        return _to_tensor(_strips(image), image.size[::-1], orientation)


def unit_range(array: Pixels) -> Tensor:
    """Scale an array (H, W, 1 to 4) of uint8 or uint16 to (1, 3, H, W) in [0, 1], laid on white."""
    return _to_tensor(_row_blocks(array), array.shape[:2])


def _to_tensor(strips: Iterable[Pixels], size: tuple[int, ...], orientation: int = 1) -> Tensor:
    """Scale consecutive rows and put them where the orientation has them."""
    height, width = size
    swapped, reversed_axes = _ORIENTATIONS[orientation]
    image = np.empty((3, width, height) if swapped else (3, height, width), np.float32)
    stored = np.flip(np.moveaxis(image, 0, -1), reversed_axes)
    stored = stored.swapaxes(0, 1) if swapped else stored
    top = 0
    for strip in strips:
        values = strip.astype(np.float32)
        values /= np.float32(np.iinfo(strip.dtype).max)
        if strip.shape[2] in (2, 4):
            alpha = values[..., -1:]
            values = values[..., :-1] * alpha + (1 - alpha)
        stored[top : top + len(strip)] = values
        top += len(strip)
    return torch.from_numpy(image)[None]


def _row_blocks(array: Pixels) -> Iterator[Pixels]:
    rows = max(1, _STRIP // max(1, array.shape[1]))
    return (array[top : top + rows] for top in range(0, len(array), rows))


def _strips(image: Image.Image) -> Iterator[Pixels]:
    """Decode an image and give blocks of rows, (h, W, 1 to 4) of uint8 or uint16."""
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        if getattr(image, "tag_v2", {}).get(262) == 0:
            raise _UnreadableError("its 16-bit grey is inverted; save it as a PNG")
        return _row_blocks(np.asarray(image).astype(np.uint16)[..., None])
    if image.mode in ("I", "F"):
        raise _UnreadableError(
            "its 32-bit values have no known white level; save it with 8 or 16 bits per channel"
        )
    mode = "RGBA" if image.has_transparency_data else "RGB"
    width, height = image.size
    tops = [*range(0, height, max(1, _STRIP // width)), height]
    return (
        np.asarray(image.crop((0, top, width, bottom)).convert(mode))
        for top, bottom in pairwise(tops)
    )


def _deep_strips(content: bytes) -> tuple[Iterator[Pixels], tuple[int, ...]]:
    import cv2

    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16 or array.ndim != 3:
        raise _UnreadableError("16-bit files of its kind are not supported; save it as a PNG")
    order = [2, 1, 0, *range(3, array.shape[2])]
    return (block[..., order] for block in _row_blocks(array)), array.shape[:2]


# Opening a file, and what is refused


class _UnreadableError(Exception):
    """Why a file is refused, without its name."""


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with _as_image_error(path):
        if path.is_dir():
            raise _UnreadableError(f"it is a folder, expected {_EXPECTED}")
        if not path.exists():
            raise _UnreadableError("there is no such file")
        if not path.is_file():
            raise _UnreadableError("it is not a regular file")
        with path.open("rb") as stream:
            yield stream


def _open(path: Path, stream: IO[bytes]) -> Image.Image:
    from PIL import Image, UnidentifiedImageError, features

    head = stream.read(64)
    stream.seek(0)
    if not head:
        raise _UnreadableError(f"the file is empty, expected {_EXPECTED}")
    kind = _container(head)
    if kind == "HEIC":
        purpose = f"cannot read {path}: HEIC images need pillow-heif"
        heif = import_extra("pillow_heif", purpose, "kornia-ditf[heic]")
        image: Image.Image = heif.HeifImageFile(stream)
        return image
    if kind and not features.check(_FEATURES[kind]):
        raise _UnreadableError(
            f"it is an {kind} image, and this Pillow was built without {kind}; type "
            "`pip install --upgrade pillow`, or save the image as a PNG"
        )
    try:
        return Image.open(stream, formats=(kind,) if kind else _FORMATS)
    except UnidentifiedImageError as error:
        raise _UnreadableError(
            f"it is not an image, or its beginning is damaged; expected {_EXPECTED}"
        ) from error


def _container(head: bytes) -> str:
    """Return the format of a file that not every Pillow reads; empty for all others."""
    if head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "JPEG2000"
    if head[4:8] != b"ftyp":
        return ""
    if b"avif" in head or b"avis" in head:
        return "AVIF"
    return "HEIC" if head[8:12] in _HEIC_BRANDS else ""


@contextmanager
def _as_image_error(path: Path) -> Iterator[None]:
    """Raise one ImageError for whatever Pillow raises, and silence its warnings."""
    from PIL import Image

    try:
        with quiet(Warning):  # of large images and odd metadata
            yield
    except DiTFError:
        raise
    except _UnreadableError as error:
        raise ImageError(f"cannot read {path}: {error}") from error
    except Image.DecompressionBombError as error:
        limit = min(MAX_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
        raise ImageError(
            f"cannot read {path}: it has more than {limit:,} pixels, so shrink it first"
        ) from error
    except MemoryError as error:
        raise ImageError(f"cannot read {path}: decoding it needs more memory") from error
    except Exception as error:  # Decoders raise anything from OSError to struct.error.
        if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
            raise ImageError(f"cannot read {path}: {error.strerror}") from error
        raise ImageError(
            f"cannot read {path}: the image is damaged or cut short ({error}); get an intact copy"
        ) from error


def _check(image: Image.Image, stream: IO[bytes]) -> None:
    """Refuse what is too large, more than one image, or ends too early.

    Decoders fill up the rest of a file that is cut short, so this looks at the bytes.
    """
    from PIL import Image, TiffImagePlugin

    width, height = _stored_size(image)
    if width * height > MAX_PIXELS:
        raise _UnreadableError(
            f"{width} x {height} are more than {MAX_PIXELS:,} pixels, so shrink it first"
        )
    # Telephones write previews and depth behind a photograph: MPO and HEIC open as the photograph.
    if image.format not in ("MPO", "HEIF") and getattr(image, "is_animated", False):
        raise _UnreadableError("it has several frames or pages, so extract one")
    whole = True
    stream.seek(0)
    if image.format == "PNG":
        Image.open(stream, formats=("PNG",)).verify()  # the checksums of all chunks but the last
        stream.seek(0)
        whole = _END_OF_PNG in stream.read()
    elif image.format in ("JPEG", "MPO"):
        scans = count_scans(stream.read())
        if scans > _MAX_SCANS:
            raise _UnreadableError(f"it has more than {_MAX_SCANS} scans; save it again")
        whole = scans > 0
    elif image.format == "JPEG2000":
        content = stream.read()
        whole = content.find(b"\xff\xd9", content.find(b"\xff\x4f\xff\x51")) >= 0
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        tags, size = image.tag_v2, stream.seek(0, os.SEEK_END)
        offsets = tags.get(273) or tags.get(324) or ()
        lengths = tags.get(279) or tags.get(325) or ()
        whole = all(start + length <= size for start, length in zip(offsets, lengths, strict=True))
        if tags.get(322, 0) * tags.get(323, 0) > max(4 * width * height, 1 << 20):
            raise _UnreadableError("its tiles are much larger than the image; save it again")
    if not whole:
        raise _UnreadableError("the image is cut short; get an intact copy")


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height before orientation; Pillow swaps those of a turned TIFF."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return (tags[256], tags[257]) if tags else image.size


def _orientation(image: Image.Image, stream: IO[bytes]) -> int:
    if image.format != "PNG":
        return _exif_orientation(image)
    import PIL.Image

    # Metadata may follow the pixels, which Pillow would decode to get there. So it is given all
    # chunks but the pixels.
    chunks = [_PNG]
    stream.seek(len(_PNG))
    while len(header := stream.read(8)) == 8 and header[4:] != b"IEND":
        length = int.from_bytes(header[:4], "big") + 4
        if header[4:] in _PNG_METADATA:
            chunks.append(header + stream.read(length))
        else:
            stream.seek(length, os.SEEK_CUR)
    chunks += [b"\0\0\0\0IDAT\x35\xaf\x06\x1e", _END_OF_PNG]
    metadata = PIL.Image.open(BytesIO(b"".join(chunks)), formats=("PNG",))
    return _exif_orientation(metadata)


def _exif_orientation(image: Image.Image) -> int:
    import PIL.Image

    try:
        # The method of the base class: that of a PNG decodes the pixels first.
        value = PIL.Image.Image.getexif(image).get(_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, struct.error):
        return 1  # The metadata cannot be read; the pixels may be fine.
    return int(value) if isinstance(value, int | float) and value in _ORIENTATIONS else 1
