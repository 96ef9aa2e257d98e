"""Clips that tests write: any codec and container, at any times."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

reader: Any = av


def pixels(number: int, size: tuple[int, int] = (37, 51)) -> Tensor:
    """Draw a frame (H, W, 3) of bytes."""
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)


def write_clip(
    path: Path,
    milliseconds: Sequence[int],
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    size: tuple[int, int] = (37, 51),
    **options: str,
) -> Path:
    """Write a clip of frames shown at these times."""
    with reader.open(str(path), "w", options=options) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(milliseconds):
            picture = reader.VideoFrame.from_ndarray(pixels(number, size).numpy(), format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            for packet in stream.encode(picture.reformat(format=pix_fmt)):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def write_sound(path: Path) -> Path:
    """Write a file of sound alone."""
    import numpy as np

    with reader.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        for number in range(4):
            silence = np.zeros((1, 1024), np.float32)
            frame = reader.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * number
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path
