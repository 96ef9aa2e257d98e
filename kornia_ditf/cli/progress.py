"""Progress of long work: bars in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, TypeVar

from kornia_ditf.cli import output
from kornia_ditf.utils.progress import Progress
from kornia_ditf.utils.text import printable

if TYPE_CHECKING:
    from rich import progress

Element = TypeVar("Element")


class StageProgress(Progress):
    """Shows stages, how much of each is done, and how long the rest will take."""

    _EVERY_SECONDS = 10.0

    def __init__(self) -> None:
        self._bars: progress.Progress | None = None
        self._task: progress.TaskID | None = None
        self._stage, self._total, self._done = "", 0, 0
        self._begun = self._told = time.monotonic()

    def __enter__(self) -> StageProgress:
        if output.console(error=True).is_terminal:
            self._bars = bars(transient=False)
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, stage: str, total: int) -> None:
        self._stage, self._total, self._done = stage, total, 0
        self._begun = self._told = time.monotonic()
        if self._bars is not None:
            self._task = self._bars.add_task(printable(stage), total=total or None)
        elif total:
            output.echo(f"{stage}: {total}", error=True)

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, count)
        elif now - self._told > self._EVERY_SECONDS and self._total:
            self._told = now
            left = (now - self._begun) / self._done * (self._total - self._done)
            line = f"{self._stage}: {self._done} of {self._total}, {duration(left)} left"
            output.echo(line, error=True)

    def warn(self, message: str) -> None:
        output.echo(f"warning: {message}", error=True)


class Stages:
    """Measures named stages, and shows the current one where standard error is a terminal."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._console = output.console(error=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block inside."""
        begin = time.perf_counter()
        shown = self._console.status(name) if self._console.is_terminal else nullcontext()
        with shown, redirect_stdout(sys.stderr):  # what plugins print is no result
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def describe(self) -> str:
        """List the seconds of each stage in one line."""
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.seconds.items())


def track(elements: Iterable[Element], label: str, total: int | None) -> Iterator[Element]:
    """Iterate with a bar and the time that remains, where standard error is a terminal."""
    with bars(transient=True) as shown:
        yield from shown.track(elements, description=label, total=total)


def duration(seconds: float) -> str:
    """Write seconds as people say them.

    Example:
        >>> duration(600)
        '10 min'
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def bars(*, transient: bool) -> progress.Progress:
    """Return bars with counts and times, hidden unless standard error is a terminal."""
    from rich import progress

    out = output.console(error=True)
    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=out,
        disable=not out.is_terminal,
        transient=transient,
    )
