"""Reading numeric arrays from MATLAB files (level 5, which `save -v6` and `-v7` write).

SciPy's reader follows what a damaged file says into a segmentation fault, so this one checks every
length. The format: MathWorks, "MAT-File Format", chapter 1.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kornia_ditf.datasets.files import reading

_HEADER = 128
_CODES = ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8"]
_TYPES = dict(zip((1, 2, 3, 4, 5, 6, 7, 9, 12, 13), _CODES, strict=True))
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC = range(6, 16)  # double, single, and integers of 8 to 64 bits
_COMPLEX = 0x0800
_LARGEST = 1 << 28
"""Bytes that a compressed array may unpack to."""


def read_mat(path: Path, how: str) -> dict[str, npt.NDArray[np.float64]]:
    """Read the real numeric arrays of a file, by name, as float64; all else is skipped.

    Args:
        path: the file.
        how: how to get it, for messages.

    Raises:
        DatasetError: the file is missing, or is not a sound MATLAB file of level 5.
    """
    with reading(path, "it is not a MATLAB file", how):
        content = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
        if order is None:
            raise ValueError("its header is not that of level 5; save it with -v7")
        found = {}
        for kind, data in _elements(content[_HEADER:], order):
            if kind == _COMPRESSED:
                data = zlib.decompressobj().decompress(data, _LARGEST)
                kind, data = next(_elements(data, order), (0, b""))
            if kind == _MATRIX:
                found.update(_read_array(data, order))
        return found


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the data of each element."""
    position = 0
    while position < len(content):
        tag = np.frombuffer(content[position : position + 8].ljust(8, b"\0"), f"{order}u4")
        kind, length, begin = int(tag[0]), int(tag[1]), position + 8
        if kind >> 16:  # both in one word, and up to four bytes of data in the other
            kind, length, begin = kind & 0xFFFF, kind >> 16, position + 4
            position += 8
        else:
            # Arrays that are compressed are not padded.
            position = begin + (length if kind == _COMPRESSED else -(-length // 8) * 8)
        if begin + length > len(content):
            raise ValueError("it is cut short")
        yield kind, content[begin : begin + length]


def _read_array(content: bytes, order: str) -> dict[str, npt.NDArray[np.float64]]:
    parts = _elements(content, order)
    flags = _numbers(next(parts, (0, b"")), order)
    shape = [int(side) for side in _numbers(next(parts, (0, b"")), order)]
    name = next(parts, (0, b""))[1].decode("latin-1")
    if not len(flags) or int(flags[0]) & 0xFF not in _NUMERIC or int(flags[0]) & _COMPLEX:
        return {}
    values = _numbers(next(parts, (0, b"")), order)
    if min(shape, default=-1) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{name!r} has {len(values)} values in the shape {shape}")
    return {name: values.astype(np.float64).reshape(shape, order="F")}


def _numbers(element: tuple[int, bytes], order: str) -> npt.NDArray[Any]:
    kind, data = element
    if kind not in _TYPES:
        raise ValueError(f"numbers of type {kind} are not known")
    return np.frombuffer(data, order + _TYPES[kind])
