"""How a long run goes, shown: bars in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from kornia_ditf.cli.failures import say_warning

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class StageProgress:
    """Shows stages, how many of their items are done, and how long the rest will take."""

    _EVERY_SECONDS = 10.0

    def __init__(self) -> None:
        from kornia_ditf.cli import output

        self._console = output.console(error=True)
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._stage, self._total, self._done = "", 0, 0
        self._begun = self._told = time.monotonic()

    def __enter__(self) -> StageProgress:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        if self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, stage: str, total: int) -> None:
        self._stage, self._total, self._done = stage, total, 0
        self._begun = self._told = time.monotonic()
        if self._bars is not None:
            self._task = self._bars.add_task(stage, total=total or None)
        elif total:
            typer.echo(f"{stage}: {total}", err=True)

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, count)
        elif now - self._told > self._EVERY_SECONDS and self._total:
            self._told = now
            left = (now - self._begun) / self._done * (self._total - self._done)
            typer.echo(
                f"{self._stage}: {self._done} of {self._total}, {duration(left)} left", err=True
            )

    def warn(self, message: str) -> None:
        say_warning(message)


def duration(seconds: float) -> str:
    """Write seconds as people say them.

    Example:
        >>> duration(600)
        '10 min'
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
