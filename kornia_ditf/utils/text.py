"""Text from file names, labels and annotations, made safe to show."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")


def printable(text: object) -> str:
    r"""Return text with control characters as escapes, so that it cannot steer a terminal.

    Example:
        >>> printable("\x1b[31mred")
        '\\x1b[31mred'
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        each
        if each.isprintable() or each == "\n" or unicodedata.category(each) == "Zs"
        else each.encode("unicode_escape").decode()
        for each in shown
    )


def one_line(text: str) -> str:
    r"""Return text on one line, as `printable` shows it.

    Example:
        >>> one_line("a cat\n# and a dog")
        'a cat # and a dog'
    """
    return printable(_BREAKS.sub(" ", text))


def byte_size(count: float | None) -> str:
    """Write a number of bytes in decimal units; None is one that is not known.

    Example:
        >>> byte_size(2_830_000_000), byte_size(195_300)
        ('2.83 GB', '195 kB')
    """
    if count is None:
        return "not known"
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def short_repr(value: Any) -> str:
    """Represent a dataclass, its tensors by dtype and shape and not by their numbers.

    Example:
        >>> import torch
        >>> from kornia_ditf.types import Conditioning
        >>> Conditioning({"text": torch.zeros(1, 8)})
        Conditioning(tensors={'text': float32 (1, 8)})
    """
    shown = ", ".join(
        f"{each.name}={_short(getattr(value, each.name))}" for each in fields(value) if each.repr
    )
    return f"{type(value).__name__}({shown})"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_short(each)}' for key, each in value.items())}}}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return repr(value)
