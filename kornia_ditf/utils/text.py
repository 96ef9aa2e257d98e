"""Text from file names, labels and annotations, made safe to show."""

from __future__ import annotations

import unicodedata


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
