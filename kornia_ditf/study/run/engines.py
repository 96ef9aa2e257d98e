"""Engines that run jobs: in this process, or in one process per device.

Jobs leave nothing behind but whole files, so one whose worker died is simply done again.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from threading import Thread
from typing import Any

from kornia_ditf.errors import StudyError
from kornia_ditf.study.define.jobs import Job, Outcome, Setup
from kornia_ditf.study.run.worker import Worker

_DEATHS = 3


Done = tuple[Job, Outcome]
Follow = Callable[[Job, Outcome], Iterable[Job]]
"""Returns the jobs that an outcome makes possible."""


def nothing_follows(job: Job, outcome: Outcome) -> Iterable[Job]:
    """A `Follow` of jobs that stand by themselves."""
    return ()


class Engine(ABC):
    """Runs jobs, in any order."""

    @abstractmethod
    def outcomes(self, jobs: Iterable[Job], follow: Follow = nothing_follows) -> Iterator[Done]:
        """Run jobs, and yield each with its outcome as soon as it is done.

        Args:
            jobs: taken one after another, when a worker is free.
            follow: the jobs that it returns are run before those that wait.

        Raises:
            StudyError: a job's worker died again and again.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Release the workers."""


class Local(Engine):
    """Runs jobs one after another in this process."""

    def __init__(self, setup: Setup, device: str | None = None) -> None:
        self._worker = Worker(setup, device)

    def outcomes(self, jobs: Iterable[Job], follow: Follow = nothing_follows) -> Iterator[Done]:
        source, ready = iter(jobs), deque[Job]()
        while (job := ready.popleft() if ready else next(source, None)) is not None:
            outcome = self._worker.do(job)
            ready.extend(follow(job, outcome))
            yield job, outcome

    def close(self) -> None:
        self._worker.close()


class Pooled(Engine):
    """Runs jobs on workers that may die, one job per worker at a time."""

    workers: int

    @abstractmethod
    def _submit(self, place: int, job: Job) -> Any:
        """Submit a job to a worker, and return a handle of its outcome."""

    @abstractmethod
    def _ready(self, pending: Sequence[Any]) -> Any:
        """Wait for one of several handles, and return it."""

    @abstractmethod
    def _result(self, handle: Any) -> Outcome | None:
        """Return the outcome of a handle; None if its worker died."""

    @abstractmethod
    def _restart(self, place: int) -> None:
        """Replace a dead worker."""

    def _begin(self, place: int) -> Any:
        """Return a handle that is ready once a worker is; None if it may be given work at once."""
        return None

    def _began(self, place: int, answer: Any) -> None:
        """Take what a worker that is ready answers."""

    def _guilty(self, place: int) -> bool:
        """Whether the work may be why a worker died."""
        return True

    def outcomes(self, jobs: Iterable[Job], follow: Follow = nothing_follows) -> Iterator[Done]:
        source, again = iter(jobs), deque[tuple[Job, int]]()
        running: dict[Any, tuple[int, Job, int]] = {}
        idle: list[int] = []
        beginning: dict[Any, int] = {}
        dead = 0

        def begin(place: int) -> None:
            handle = self._begin(place)
            if handle is None:
                idle.append(place)
            else:
                beginning[handle] = place

        for place in range(self.workers):
            begin(place)
        while True:
            while idle:
                job, deaths = again.popleft() if again else (next(source, None), 0)
                if job is None:
                    break
                place = idle.pop()
                running[self._submit(place, job)] = (place, job, deaths)
            if not running and (idle or not beginning):
                return
            handle = self._ready([*running, *beginning])
            outcome = self._result(handle)
            if handle in beginning:
                place = beginning.pop(handle)
                if outcome is not None:
                    idle.append(place)
                    self._began(place, outcome)
                    continue
                dead += 1
                if dead == _DEATHS * self.workers:
                    raise StudyError(f"{dead} workers died before they were given any work")
                self._restart(place)
                begin(place)
                continue
            place, job, deaths = running.pop(handle)
            if outcome is not None:
                idle.append(place)
                again.extend((each, 0) for each in follow(job, outcome))
                yield job, outcome
                continue
            deaths += self._guilty(place)
            self._restart(place)
            begin(place)
            if deaths == _DEATHS:
                raise StudyError(
                    f"{_DEATHS} workers died of one piece of work ({_describe(job)}); memory "
                    "may not suffice: use fewer workers, or a smaller model or long_side"
                )
            again.append((job, deaths))


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


def _do(job: Job) -> Outcome:
    assert _own is not None
    return _own.do(job)


def default_devices() -> list[str | None]:
    """Return all GPUs of this host, or the CPU twice if there is none."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)] or ["cpu", "cpu"]


class Processes(Pooled):
    """Runs jobs in one process per device.

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

    def _submit(self, place: int, job: Job) -> Future[Outcome]:
        try:
            return self._pools[place].submit(_do, job)
        except BrokenProcessPool:  # it died while it had nothing to do
            self._restart(place)
            return self._pools[place].submit(_do, job)

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


def _describe(job: Job) -> str:
    return type(job).__name__.lower()
