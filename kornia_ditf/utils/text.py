"""Text from file names, labels and annotations, made safe to show."""

from __future__ import annotations

import re
import unicodedata

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
