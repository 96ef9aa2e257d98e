"""Facts, tables and JSON in; text for people or documents for machines out."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")

_LIBRARIES = ("kornia-ditf", "torch", "diffusers")


def console(*, error: bool = False) -> Console:
    """Give the console of standard output or error, plain and unwrapped where it is no terminal."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else 10_000
    return Console(stderr=error, width=width, highlight=False, markup=False, emoji=False)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print labelled lines, the texts aligned."""
    from rich.text import Text

    out = console()
    space = max(len(label) for label, _ in facts) + 2
    for label, text in facts:
        line = Text(label.ljust(space), style="bold") + Text(text, style="not bold")
        out.print(line, soft_wrap=True)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> list[str]:
    """Print a table; in a pipe as aligned columns without lines or colours.

    Args:
        columns: the headings.
        rows: the cells.
        right: the columns that are aligned to the right.
        optional: the columns that are left out, one after another, where a terminal is too narrow.

    Returns:
        the columns that were left out.
    """
    from rich import box
    from rich.table import Table

    out = console()
    left_out: list[str] = []
    while True:
        table = Table(box=box.SIMPLE_HEAD if out.is_terminal else None, pad_edge=False)
        kept = [index for index, column in enumerate(columns) if column not in left_out]
        for index in kept:
            justify: Literal["right", "left"] = "right" if columns[index] in right else "left"
            table.add_column(columns[index], justify=justify, overflow="fold")
        for row in rows:
            table.add_row(*(row[index] for index in kept))
        unwrapped = out.measure(table, options=out.options.update(max_width=10_000)).maximum
        if len(left_out) == len(optional) or unwrapped <= out.width:
            break
        left_out.append(optional[len(left_out)])
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().rstrip("\n").split("\n"):
        typer.echo(line.rstrip())
    return left_out


def print_json(document: Mapping[str, Any]) -> None:
    """Write a document to standard output."""
    typer.echo(json.dumps(document, indent=1))


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document to a file, whole or not at all."""
    from kornia_ditf.utils.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document), "utf-8")


def package_version(name: str) -> str:
    """Give an installed package's version, or `unknown`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    """Give the versions of what a result depends on."""
    return {"python": platform.python_version()} | {n: package_version(n) for n in _LIBRARIES}


def check_output(path: Path | None, *, inputs: Sequence[Path] = ()) -> None:
    """Try whether a file can be written, before the work and not after it.

    Raises:
        OutputError: it cannot, or it is one of the inputs.
    """
    from kornia_ditf.errors import OutputError
    from kornia_ditf.utils.files import atomic_write

    if path is None:
        return
    if path.exists() and any(given.exists() and path.samefile(given) for given in inputs):
        raise OutputError(f"cannot write {path}: it is one of the images; name another file")

    class Tried(Exception):
        pass

    try:
        with atomic_write(path):
            raise Tried
    except Tried:
        pass


def make_folder(folder: Path) -> None:
    """Make a folder that results go to, if it is not there.

    Raises:
        OutputError: it cannot be made.
    """
    from kornia_ditf.errors import OutputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder} ({error.strerror}): name another") from error


class Stages:
    """Measures named stages, and shows the current one where standard error is a terminal."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console(error=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what runs inside."""
        begin = time.perf_counter()
        shown = self._console.status(name) if self._console.is_terminal else nullcontext()
        with shown, redirect_stdout(sys.stderr):  # what plugins print is no result
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def describe(self) -> str:
        """Say each stage's seconds in one line."""
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.seconds.items())


def track(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Go through items, with a bar and the time that remains where standard error is a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    out = console(error=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as progress:
        yield from progress.track(items, description=label)
