"""Progress of long work, for whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of long work, such as a study or a calibration."""

    def begin(self, stage: str, total: int) -> None:
        """A stage begins, with `total` images, pairs or forward passes; 0 is unknown."""

    def advance(self, count: int) -> None:
        """`count` more of them are done."""

    def warn(self, message: str) -> None:
        """Something to know happened, such as a damaged file that is made again."""


class Quiet(Progress):
    """Ignores all progress."""

    def begin(self, stage: str, total: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def warn(self, message: str) -> None: ...
