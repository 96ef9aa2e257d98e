"""The frames of a video file, decoded one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import ImageError

VIDEO_SUFFIXES = frozenset(
    (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
)
"""Endings by which a file is taken for a video."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """One frame of a video.

    Args:
        image: RGB in [0, 1], shape (1, 3, H, W).
        seconds: when it is shown, from the first frame; at a variable rate, steps differ.
    """

    image: Tensor
    seconds: float


def read_frames(path: str | Path) -> Iterator[VideoFrame]:
    """Decode the frames of a video file, one at a time, upright.

    PyAV reads it where it is installed (`pip install av`), OpenCV otherwise. Every frame that is
    stored comes once, whatever the frame rate.

    Args:
        path: the file.

    Raises:
        ImageError: the file is missing, is no video, holds no frame, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"no such video: {path}")
    return _checked(path, _with_pyav(path) if _has_pyav() else _with_opencv(path))


def _has_pyav() -> bool:
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _checked(path: Path, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    count = 0
    for frame in frames:
        count += 1
        yield frame
    if not count:
        raise ImageError(f"{path} holds no frame that can be decoded; is it a video?")


def _with_pyav(path: Path) -> Iterator[VideoFrame]:
    import av

    reader: Any = av
    try:
        with reader.open(str(path)) as file:
            if not file.streams.video:
                return
            stream = file.streams.video[0]
            stream.thread_type = "AUTO"
            first: float | None = None
            for frame in file.decode(stream):
                first = frame.time if first is None else first
                seconds = (frame.time or 0.0) - (first or 0.0)
                pixels = frame.to_ndarray(format="rgb24")
                turns = round(getattr(frame, "rotation", 0) / 90)
                yield VideoFrame(_image(pixels, turns), seconds)
    except reader.FFmpegError as error:
        raise ImageError(f"cannot decode {path}: {error}") from error


def _with_opencv(path: Path) -> Iterator[VideoFrame]:
    import cv2

    capture: Any = cv2.VideoCapture(str(path))
    try:
        first: float | None = None
        while capture.isOpened():
            there, pixels = capture.read()
            if not there:
                return
            seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            first = seconds if first is None else first
            yield VideoFrame(_image(pixels[..., ::-1]), seconds - first)
    finally:
        capture.release()


def _image(pixels: Any, turns: int = 0) -> Tensor:
    """Give an RGB array (H, W, 3) of bytes as an image, after quarter turns anticlockwise."""
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    return torch.rot90(image, turns % 4, (1, 2))[None]
