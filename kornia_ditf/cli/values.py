"""Values of options: lists of blocks and of numbers, and KEY=VALUE."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any


def read_blocks(text: str, count: int) -> list[int]:
    """Read a list of blocks such as `3,5`, `0-8` or `all`.

    Raises:
        InvalidArgumentError: it is none, or a block is out of range.
    """
    from kornia_ditf.errors import InvalidArgumentError

    if not count:
        raise InvalidArgumentError("--blocks needs a Diffusion Transformer; choose such a backbone")
    if text.strip() == "all":
        return list(range(count))
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise InvalidArgumentError(f"--blocks must be like 3,5 or 0-8 or all, got {text!r}")
        start, end = int(found[1]), int(found[2] or found[1])
        if end >= count:
            raise InvalidArgumentError(f"--blocks must lie in 0 to {count - 1}, got {text!r}")
        if end < start:
            raise InvalidArgumentError(f"--blocks must ascend, such as 3-5, got {text!r}")
        numbers.update(range(start, end + 1))
    return sorted(numbers)


def read_numbers(
    option: str, text: str | None, kind: Callable[[str], float]
) -> tuple[float, ...] | None:
    """Read a list of numbers with commas between them; whole ones become integers.

    Raises:
        InvalidArgumentError: one is none.
    """
    from kornia_ditf.errors import InvalidArgumentError

    if text is None:
        return None
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidArgumentError(
            f"{option} must be comma-separated numbers, got {text!r}"
        ) from error
    return tuple(int(n) if float(n).is_integer() else n for n in numbers)


def read_pca(text: str | None) -> int | tuple[int, ...] | None:
    """Read the option --pca: a number of components, or one for each part.

    Raises:
        InvalidArgumentError: it is none.
    """
    numbers = [int(each) for each in read_numbers("--pca", text, int) or ()]
    return tuple(numbers) if len(numbers) > 1 else next(iter(numbers), None)


def read_others(others: Sequence[str] | None) -> dict[str, Any]:
    """Read the option --option: KEY=VALUE, where the value is JSON or else a text.

    Raises:
        InvalidArgumentError: there is no `=`.
    """
    from kornia_ditf.errors import InvalidArgumentError

    found: dict[str, Any] = {}
    for text in others or ():
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise InvalidArgumentError(f"--option must be KEY=VALUE, got {text!r}")
        if key in ("name", "source"):
            given = "--source" if key == "source" else "--backbone"
            raise InvalidArgumentError(f"--option {key}= is not a backbone's option; type {given}")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
