from __future__ import annotations

import pytest

from kornia_ditf.utils.text import printable


@pytest.mark.parametrize(
    "text", ["plain", "zwei Wörter", "画像\u3000一", "a\u00a0b", "line\nline", ""]
)
def test_what_only_shows_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x07\r\t\x00", r"\x07\r\t\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),  # which would turn the direction of writing
        ("\udcff", r"\udcff"),
        ("\u2028", r"\u2028"),
    ],
)
def test_what_would_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
