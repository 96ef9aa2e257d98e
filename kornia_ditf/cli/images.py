"""Reading an image and checking that the model can take it, with errors that name the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.errors import ImageError

_FRAME = re.compile(r"(?P<video>.+\.\w+)@(?P<at>\d+(\.\d+)?)(?P<seconds>s?)")


def read_fitting(path: Path, long_side: int | None, pixels_per_token: int) -> Tensor:
    """Read an image, or a frame of a video such as `clip.mp4@12`, that the model can take.

    Returns:
        RGB in [0, 1], shape (1, 3, H, W), in the file's own size.

    Raises:
        ImageError: the file cannot be read, or the image is too small or too thin.
        InvalidArgumentError: the long side is shorter than a token.
    """
    from kornia_ditf.preprocess import read_image

    image = _read_frame(path)
    if image is None:
        image = read_image(path)
    check_fitting(path, image, long_side, pixels_per_token)
    return image


def decode_fitting(
    content: bytes | ImageError, label: str, long_side: int | None, pixels_per_token: int
) -> Tensor:
    """Decode an image, or raise why it was not read; otherwise as `read_fitting`."""
    from kornia_ditf.errors import ImageError
    from kornia_ditf.utils.images import decode_image

    if isinstance(content, ImageError):
        raise content
    image = decode_image(content, label)
    check_fitting(label, image, long_side, pixels_per_token)
    return image


def check_fitting(
    path: Path | str, image: Tensor, long_side: int | None, pixels_per_token: int
) -> None:
    """Check that an image can be fitted to the model; arguments and errors as `read_fitting`."""
    from kornia_ditf.errors import ImageError
    from kornia_ditf.preprocess import fitted_size

    try:
        fitted_size((image.shape[2], image.shape[3]), long_side, pixels_per_token)
    except ImageError as error:
        raise ImageError(f"cannot use {path}: {error}") from error


def _read_frame(path: Path) -> Tensor | None:
    """Read the frame that a path names, by its number or its second; None where it names none."""
    from kornia_ditf.errors import ImageError
    from kornia_ditf.video.frames import is_video, read_frames

    if is_video(path) and path.exists():
        raise ImageError(
            f"{path} is a video; name one of its frames by number, {path}@12, or by time, "
            f"{path}@1.5s"
        )
    named = _FRAME.fullmatch(str(path))
    if named is None or not is_video(named["video"]) or path.exists():
        return None
    if named["seconds"]:
        return next(read_frames(named["video"], start=float(named["at"]))).image
    if "." in named["at"]:
        raise ImageError(f"{path} names no frame: numbers are integers, times end with s")
    last = -1
    for frame in read_frames(named["video"]):
        if frame.number == int(named["at"]):
            return frame.image
        last = frame.number
    raise ImageError(f"{named['video']} has the frames 0 to {last}, and no {named['at']}")
