"""The frames of a video file, decoded one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.utils.checks import check_integer

VIDEO_SUFFIXES = frozenset(
    (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
)
"""Endings by which a file is taken for a video."""

_SLACK_SECONDS = 0.1

# The time at which a frame is shown, and the frame itself, converted only when it is wanted.
_Decoded: TypeAlias = tuple[float, Callable[[], Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """One frame of a video.

    Args:
        image: RGB in [0, 1], shape (1, 3, H, W).
        seconds: its time since the first frame; at a variable rate, steps differ.
        number: its index in the video, from 0.
    """

    image: Tensor
    seconds: float
    number: int = 0


def is_video(path: str | Path) -> bool:
    """Whether a file's ending is that of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def read_frames(
    path: str | Path,
    *,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    frames: int | None = None,
) -> Iterator[VideoFrame]:
    """Decode the frames of a video file, one at a time, upright.

    PyAV reads it where it is installed (`pip install 'kornia-ditf[video]'`), OpenCV otherwise.
    Every frame that is stored comes once, whatever the frame rate.

    Args:
        path: the file.
        every: take only each n-th frame, beginning with the first one after `start`.
        start: seconds after the first frame at which to begin.
        end: seconds after the first frame at which to end; a frame shown then is not taken.
        frames: maximum number of frames.

    Raises:
        ImageError: the file is missing, holds no video or no such frame, or is damaged; frames
            before the damage come first.
        InvalidArgumentError: `every`, `start`, `end` or `frames` is out of range.
    """
    path = Path(path)
    check_integer("every", every, 1)
    if frames is not None:
        check_integer("frames", frames, 1)
    if not 0 <= start < (math.inf if end is None else end):
        raise InvalidArgumentError(
            f"start and end must be seconds, 0 <= start < end, got {start} and {end}"
        )
    if not path.is_file():
        raise ImageError(f"no such video: {path}")
    decoded = _with_opencv(path) if find_spec("av") is None else _with_pyav(path)
    return _select(path, decoded, every, start, end, frames)


def windows(frames: Iterable[VideoFrame], size: int) -> Iterator[list[VideoFrame]]:
    """Group consecutive frames of the same size, up to a maximum number."""
    held: list[VideoFrame] = []
    for frame in frames:
        if held and (len(held) == size or frame.image.shape != held[0].image.shape):
            yield held
            held = []
        held.append(frame)
    if held:
        yield held


def _select(
    path: Path,
    decoded: Iterator[_Decoded],
    every: int,
    start: float,
    end: float | None,
    frames: int | None,
) -> Iterator[VideoFrame]:
    first, seconds, candidates = 0.0, 0.0, 0
    for number, (time, image) in enumerate(decoded):
        first = time if number == 0 else first
        seconds = time - first
        if end is not None and seconds >= end:
            break
        if seconds >= start:
            if candidates % every == 0:
                yield VideoFrame(image(), seconds, number)
            candidates += 1
            if frames is not None and candidates > (frames - 1) * every:
                return
    if not candidates:
        until = "" if end is None else f" and before {end:g} s"
        raise ImageError(
            f"{path} has no frame from {start:g} s on{until}; its frames end at {seconds:.2f} s"
        )


def _with_pyav(path: Path) -> Iterator[_Decoded]:
    import av

    reader: Any = av
    number, seconds, ends, packets = 0, 0.0, 0.0, 0
    try:
        with reader.open(str(path)) as file:
            cover = reader.stream.Disposition.attached_pic  # of an album, in files of music
            streams = [each for each in file.streams.video if not each.disposition & cover]
            if not streams:
                kinds = ", ".join(sorted({each.type for each in file.streams})) or "nothing"
                raise ImageError(f"{path} holds no video, only {kinds}")
            stream = streams[0]
            if stream.codec_context is None:
                raise ImageError(
                    f"{path} uses a codec that this build of FFmpeg does not support; convert it, "
                    "as with: ffmpeg -i FILE -c:v libx264 OUT.mp4"
                )
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 25)
            for packet in file.demux(stream):
                packets += packet.size > 0
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise _damage(path, number, seconds, "a frame is corrupt")
                    seconds = number / rate if frame.time is None else frame.time
                    step = float(frame.duration * frame.time_base) if frame.duration else 1 / rate
                    ends = max(ends, seconds + step)
                    yield seconds, partial(_convert, frame)
                    number += 1
            # Where a container counts frames that number is exact, but a trimmed clip has fewer.
            if not packets >= stream.frames > 0:
                _check_end(path, number, seconds, ends, _duration(file, stream))
    except reader.FFmpegError as error:
        raise _damage(path, number, seconds, error.strerror or str(error)) from error
    if not number:
        raise ImageError(f"{path} holds no frame that can be decoded; is it a video?")


def _with_opencv(path: Path) -> Iterator[_Decoded]:
    import cv2

    capture: Any = cv2.VideoCapture(str(path))
    number, seconds = 0, 0.0
    try:
        count, rate = (capture.get(p) for p in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        while capture.isOpened():
            there, pixels = capture.read()
            if not there:
                break
            seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield seconds, partial(_image, pixels[..., ::-1])
            number += 1
    finally:
        capture.release()
    if not number:
        raise ImageError(
            f"{path} holds no video that OpenCV can decode; PyAV supports more formats: pip "
            "install 'kornia-ditf[video]'"
        )
    if number < count and rate > 0:
        _check_end(path, number, seconds, seconds + 1 / rate, count / rate)


def _convert(frame: Any) -> Tensor:
    return _image(frame.to_ndarray(format="rgb24"), round(getattr(frame, "rotation", 0) / 90))


def _image(pixels: Any, turns: int = 0) -> Tensor:
    """Return an RGB array (H, W, 3) of bytes as an image, after quarter turns anticlockwise."""
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    return torch.rot90(image, turns % 4, (1, 2))[None]


def _duration(file: Any, stream: Any) -> float:
    """Return when a stream ought to end, in seconds; 0 where its file does not say."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+(\.\d+)?)", stream.metadata.get("DURATION", ""))
    if found is not None:  # of Matroska, which counts no frames
        return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return (file.duration or 0) / 1e6 if len(file.streams) == 1 else 0.0


def _check_end(path: Path, number: int, seconds: float, end: float, expected: float) -> None:
    if end + _SLACK_SECONDS < expected:
        raise _damage(path, number, seconds, f"{expected:.2f} s were announced")


def _damage(path: Path, number: int, seconds: float, reason: str) -> ImageError:
    """Return the error for a file that cannot be read on; frames before it were given."""
    if not number:
        return ImageError(f"cannot decode {path} ({reason}): it is no video, or damaged")
    return ImageError(
        f"{path} is damaged or cut short after {number} frames, at {seconds:.2f} s ({reason})"
    )
