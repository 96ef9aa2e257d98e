"""Printing results, as text for people or as one JSON document, and writing them to files."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import typer

from kornia_ditf.utils.text import printable

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Table:
    """A table: aligned columns without lines or colours in a pipe.

    Args:
        rows: the cells by their columns, the same ones in each.
        right: the columns that are aligned to the right.
        optional: the columns to drop, one after another, where a terminal is too narrow.
    """

    rows: Sequence[Mapping[str, str]]
    right: Sequence[str] = ()
    optional: Sequence[str] = ()


Facts: TypeAlias = Sequence[tuple[str, str]]
"""Labelled lines, printed with their texts aligned."""

Paragraph: TypeAlias = Facts | Table | str


def show(document: Mapping[str, Any], *text: Paragraph, as_json: bool) -> None:
    """Print a result to standard output: as one JSON document, or the same as text.

    Raises:
        OutputError: standard output cannot be written.
    """
    if as_json:
        _write(json.dumps(document, indent=1))
        return
    for number, part in enumerate(text):
        if number and not isinstance(part, str):
            echo("")
        if isinstance(part, str):
            echo(part)
        elif isinstance(part, Table):
            print_table(part)
        else:
            _print_facts(part)


def versions() -> dict[str, str]:
    """Return the versions of what an image's descriptors depend on."""
    from kornia_ditf.utils import provenance

    return provenance.versions(["kornia-ditf", "torch", "diffusers"])


def echo(text: str, *, error: bool = False) -> None:
    """Print a line, made printable.

    Raises:
        OutputError: standard output cannot be written.
    """
    _write(printable(text), error=error)


def check_stdout() -> None:
    """Check that there is a standard output, before any work is done.

    Raises:
        OutputError: it is closed.
    """
    from kornia_ditf.errors import OutputError

    if sys.stdout is None:
        raise OutputError("standard output is closed: redirect it to a file or to /dev/null")


def discard_stdout() -> None:
    """Discard what is left for standard output, which would fail once more when Python exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(*, error: bool = False) -> Console:
    """Return a console on standard output or error, plain and unwrapped unless it is a terminal."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else 10_000
    return Console(stderr=error, width=width, highlight=False, markup=False, emoji=False)


def _print_facts(facts: Facts) -> None:
    from rich.text import Text

    out = console()
    space = max(len(label) for label, _ in facts) + 2
    with out.capture() as captured:
        for label, text in facts:
            line = Text(label.ljust(space), style="bold") + Text(printable(text), style="not bold")
            out.print(line, soft_wrap=True)
    _write(captured.get().rstrip("\n"))


def print_table(table: Table) -> None:
    """Print a table; nothing where it has no rows."""
    from rich import box
    from rich.table import Table as RichTable

    if not table.rows:
        return
    out = console()
    for count in range(len(table.optional) + 1):
        dropped = table.optional[:count]
        drawn = RichTable(box=box.SIMPLE_HEAD if out.is_terminal else None, pad_edge=False)
        kept = [column for column in table.rows[0] if column not in dropped]
        for column in kept:
            justify: Literal["right", "left"] = "right" if column in table.right else "left"
            drawn.add_column(column, justify=justify, overflow="fold")
        for row in table.rows:
            drawn.add_row(*(printable(row[column]) for column in kept))
        if out.measure(drawn, options=out.options.update(max_width=10_000)).maximum <= out.width:
            break
    with out.capture() as captured:
        out.print(drawn)
    _write("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))
    if dropped:
        echo(f"The terminal is too narrow for {', '.join(dropped)}; widen it, or use --json.")


@contextmanager
def written_json(path: Path, document: Mapping[str, Any]) -> Iterator[None]:
    """Write a document to a file, whole, if the block succeeds."""
    from kornia_ditf.utils.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document), "utf-8")
        yield


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document to a file, whole or not at all."""
    with written_json(path, document):
        pass


def check_output(path: Path | None, *, inputs: Sequence[Path] = ()) -> None:
    """Check that a file can be written, before the work and not after it.

    Raises:
        OutputError: it cannot, or it is one of the inputs.
    """
    from kornia_ditf.errors import OutputError
    from kornia_ditf.utils.files import atomic_write

    if path is None:
        return
    with suppress(_TriedError), atomic_write(path):
        raise _TriedError
    if path.exists() and any(given.exists() and path.samefile(given) for given in inputs):
        raise OutputError(f"cannot write {path}: it is one of the images; name another file")


class _TriedError(Exception):
    """Leaves a file unwritten that was only tried."""


def _write(text: str, *, error: bool = False) -> None:
    from kornia_ditf.errors import OutputError

    try:
        typer.echo(text, err=error)
    except OSError as problem:
        if error or problem.errno == errno.EPIPE:  # a reader that has seen enough, such as head
            raise
        discard_stdout()
        raise OutputError(f"cannot write standard output ({problem.strerror})") from problem
