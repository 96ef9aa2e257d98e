"""Units in, their outcomes out: in this process, or in one process per device.

Units leave nothing behind but whole files, so one whose worker died is simply done again.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from threading import Thread
from typing import Any

from kornia_ditf.errors import StudyError
from kornia_ditf.study.define.jobs import Outcome, Setup, Unit
from kornia_ditf.study.run.worker import Worker

_DEATHS = 3


Done = tuple[Unit, Outcome]


class Engine(ABC):
    """Does units, in any order."""

    @abstractmethod
    def outcomes(self, units: Iterable[Unit]) -> Iterator[Done]:
        """Do units; give each with its outcome as soon as that is there.

        Raises:
            StudyError: a unit's worker died again and again.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of workers."""


class Local(Engine):
    """Does units one after another in this process."""

    def __init__(self, setup: Setup, device: str | None = None) -> None:
        self._worker = Worker(setup, device)

    def outcomes(self, units: Iterable[Unit]) -> Iterator[Done]:
        return ((unit, self._worker.do(unit)) for unit in units)


class Pooled(Engine):
    """Hands units to workers that may die, each with one at a time."""

    workers: int

    @abstractmethod
    def _submit(self, place: int, unit: Unit) -> Any:
        """Give a unit to a worker; what comes back stands for its outcome."""

    @abstractmethod
    def _ready(self, pending: Sequence[Any]) -> Any:
        """Wait for one of several units."""

    @abstractmethod
    def _result(self, handle: Any) -> Outcome | None:
        """Give a unit's outcome; None where its worker died."""

    @abstractmethod
    def _restart(self, place: int) -> None:
        """Put a new worker in the place of a dead one."""

    def outcomes(self, units: Iterable[Unit]) -> Iterator[Done]:
        source, again = iter(units), deque[tuple[Unit, int]]()
        running: dict[Any, tuple[int, Unit, int]] = {}
        idle = list(range(self.workers))
        while True:
            while idle:
                unit, deaths = again.popleft() if again else (next(source, None), 0)
                if unit is None:
                    break
                place = idle.pop()
                running[self._submit(place, unit)] = (place, unit, deaths)
            if not running:
                return
            handle = self._ready(list(running))
            place, unit, deaths = running.pop(handle)
            outcome = self._result(handle)
            if outcome is None:
                self._restart(place)
                if deaths + 1 == _DEATHS:
                    raise StudyError(
                        f"{_DEATHS} workers died of one piece of work ({_describe(unit)}); memory "
                        "may not suffice: use fewer workers, or a smaller model or long_side"
                    )
                again.append((unit, deaths + 1))
            idle.append(place)
            if outcome is not None:
                yield unit, outcome


_own: Worker | None = None


def _begin(setup: Setup, device: str | None, threads: int, parent: int) -> None:
    import torch

    def leave_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    global _own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends us
    Thread(target=leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _own = Worker(setup, device)


def _do(unit: Unit) -> Outcome:
    assert _own is not None
    return _own.do(unit)


def default_devices() -> list[str | None]:
    """Name all GPUs of this host; without one, the CPU twice."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)] or ["cpu", "cpu"]


class Processes(Pooled):
    """Does units in one process per device.

    Args:
        setup: of the workers.
        devices: one worker each; a device may be named several times.
    """

    def __init__(self, setup: Setup, devices: Sequence[str | None]) -> None:
        self._setup, self._devices, self.workers = setup, devices, len(devices)
        self._pools = [self._pool(place) for place in range(self.workers)]

    def _pool(self, place: int) -> ProcessPoolExecutor:
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        return ProcessPoolExecutor(
            1,
            mp_context=get_context("spawn"),
            initializer=_begin,
            initargs=(self._setup, self._devices[place], threads, os.getpid()),
        )

    def _submit(self, place: int, unit: Unit) -> Future[Outcome]:
        try:
            return self._pools[place].submit(_do, unit)
        except BrokenProcessPool:  # it died while it had nothing to do
            self._restart(place)
            return self._pools[place].submit(_do, unit)

    def _ready(self, pending: Sequence[Future[Outcome]]) -> Future[Outcome]:
        return next(iter(wait(pending, return_when=FIRST_COMPLETED).done))

    def _result(self, handle: Future[Outcome]) -> Outcome | None:
        try:
            return handle.result()
        except BrokenProcessPool:
            return None

    def _restart(self, place: int) -> None:
        self._pools[place].shutdown(wait=False)
        self._pools[place] = self._pool(place)

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)


def _describe(unit: Unit) -> str:
    return type(unit).__name__.lower()
