"""Small pictures of coloured blobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_blobs(
    path: Path, generator: np.random.Generator, size: tuple[int, int] = (48, 64)
) -> Path:
    """Write a picture of a (height, width), and the folders that it needs; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
    noise.resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return path
