"""Seeded damage to the bytes of files: flipped bits, cuts, insertions and changed headers."""

from __future__ import annotations

import numpy as np


def mutate(content: bytes, generator: np.random.Generator) -> bytes:
    """Damage a file in one to three ways."""
    for _ in range(int(generator.integers(1, 4))):
        content = _KINDS[int(generator.integers(len(_KINDS)))](content, generator)
    return content


def _flip_bits(content: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for position in generator.integers(0, max(len(changed), 1), generator.integers(1, 9)):
        if changed:
            changed[position] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def _cut(content: bytes, generator: np.random.Generator) -> bytes:
    return content[: int(generator.integers(0, len(content) + 1))]


def _insert(content: bytes, generator: np.random.Generator) -> bytes:
    position = int(generator.integers(0, len(content) + 1))
    return content[:position] + generator.bytes(generator.integers(1, 40)) + content[position:]


def _edit_header(content: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(content)
    position = int(generator.integers(0, 200))
    extreme = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
    value = extreme[int(generator.integers(4))][: int(generator.integers(1, 5))]
    changed[position : position + len(value)] = value
    return bytes(changed)


def _repeat(content: bytes, generator: np.random.Generator) -> bytes:
    begin, end = np.sort(generator.integers(0, len(content) + 1, 2))
    return content[:end] + content[begin:end][:10_000] + content[end:]


def _replace_number(content: bytes, generator: np.random.Generator) -> bytes:
    """Put an odd word where a number stands in a text."""
    words = (b"nan", b"inf", b"-inf", b"1e400", b"-1", b"0", b"null", b"[]", b'"x"', b"{}", b"true")
    digits = [index for index, byte in enumerate(content) if 48 <= byte <= 57]
    if not digits:
        return content
    position = digits[int(generator.integers(len(digits)))]
    return content[:position] + words[int(generator.integers(len(words)))] + content[position + 1 :]


_KINDS = (_flip_bits, _cut, _insert, _edit_header, _repeat, _replace_number)
