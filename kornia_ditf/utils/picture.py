"""Pictures as arrays that a notebook shows, and their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kornia_ditf.errors import InvalidArgumentError, OutputError
from kornia_ditf.utils.files import atomic_write

PAPER = (255, 255, 255)
_GAP = 12
_SUFFIXES = (".png", ".jpg", ".jpeg")


class Picture(np.ndarray[tuple[int, ...], np.dtype[np.uint8]]):
    """An RGB picture: a NumPy array of shape (H, W, 3), uint8, which notebooks show.

    Example:
        >>> picture = Picture.of(np.zeros((24, 32, 3)))
        >>> picture.shape, Picture.beside([picture, picture]).shape
        ((24, 32, 3), (24, 76, 3))
    """

    @staticmethod
    def of(array: Any) -> Picture:
        """View an array of RGB values from 0 to 255 as a picture."""
        return np.ascontiguousarray(array, np.uint8).view(Picture)

    @staticmethod
    def beside(pictures: Sequence[npt.NDArray[np.uint8]]) -> Picture:
        """Put pictures side by side on white, with a gap between them."""
        return _line_up(pictures, axis=1)

    @staticmethod
    def below(pictures: Sequence[npt.NDArray[np.uint8]]) -> Picture:
        """Put pictures one below another on white, with a gap between them."""
        return _line_up(pictures, axis=0)

    def save(self, path: str | Path) -> None:
        """Write the picture to a file; arguments and errors as `save_picture`."""
        save_picture(path, self)

    def _repr_png_(self) -> bytes | None:
        return encode(self, ".png") if _is_picture(self) else None


def save_picture(path: str | Path, picture: npt.NDArray[np.uint8]) -> None:
    """Save a picture as PNG or JPEG, atomically.

    Args:
        path: ends in .png, .jpg or .jpeg.
        picture: RGB, shape (H, W, 3), uint8.

    Raises:
        InvalidArgumentError: another suffix, shape or dtype.
        OutputError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InvalidArgumentError(f"a picture's name must end in .png, .jpg or .jpeg, got {path}")
    if not _is_picture(picture):
        raise InvalidArgumentError(
            f"a picture must be uint8 of shape (H, W, 3), got {picture.dtype} of {picture.shape}"
        )
    with atomic_write(path) as temporary:
        temporary.write_bytes(encode(picture, suffix))


def encode(picture: npt.NDArray[np.uint8], suffix: str) -> bytes:
    """Encode a picture as PNG or JPEG.

    Raises:
        OutputError: OpenCV refuses it.
    """
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix != ".png" else []
    # cv2.imwrite would return False and hide the reason.
    encoded, content = cv2.imencode(suffix, np.asarray(picture)[..., ::-1], options)
    if not encoded:
        raise OutputError(f"cannot encode a picture of {picture.shape} as {suffix}")
    return content.tobytes()


def _is_picture(picture: npt.NDArray[Any]) -> bool:
    return bool(
        picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.size
    )


def _line_up(pictures: Sequence[npt.NDArray[np.uint8]], axis: int) -> Picture:
    if not pictures:
        raise InvalidArgumentError("there is no picture to show; pass at least one")
    widest = max(each.shape[1 - axis] for each in pictures)
    length = sum(each.shape[axis] for each in pictures) + _GAP * (len(pictures) - 1)
    shape = (widest, length, 3) if axis else (length, widest, 3)
    canvas, start = np.full(shape, PAPER, np.uint8), 0
    for each in pictures:
        height, width = each.shape[:2]
        row, column = (0, start) if axis else (start, 0)
        canvas[row : row + height, column : column + width] = each
        start += each.shape[axis] + _GAP
    return Picture.of(canvas)
