"""Small images as tests write them to files."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

HEIGHT, WIDTH = 18, 26


def colour_image() -> np.ndarray:
    """Smooth and without any symmetry, so that no orientation looks like another."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = [x * 9, y * 13, (x * 5 + y * 3) % 250]
    return np.stack(channels, -1).astype(np.uint8)


def unit(array: np.ndarray, white: float = 255) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32) / np.float32(white)).permute(2, 0, 1)[None]


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def encode(noise: np.ndarray, kind: str) -> bytes:
    if kind in ("16-bit png", "16-bit tif"):
        return cv2.imencode("." + kind.split()[1], noise.astype(np.uint16) * 257)[1].tobytes()
    options: dict[str, dict[str, Any]] = {
        "jpg": {"format": "JPEG"},
        "progressive jpg": {"format": "JPEG", "progressive": True},
        "jpg with preview": {"format": "JPEG", "exif": exif_with_preview()},
        "png": {"format": "PNG"},
        "interlaced png": {"format": "PNG", "interlace": 1},
        "tif": {"format": "TIFF"},
        "lzw tif": {"format": "TIFF", "compression": "tiff_lzw"},
        "bmp": {"format": "BMP"},
        "gif": {"format": "GIF"},
        "webp": {"format": "WEBP"},
        "ppm": {"format": "PPM"},
    }
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, **options[kind])
    return stream.getvalue()


def exif_with_preview() -> bytes:
    preview = io.BytesIO()
    Image.new("RGB", (16, 12)).save(preview, "JPEG")
    return b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + preview.getvalue()
