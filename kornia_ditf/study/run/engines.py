"""Engines that run jobs: in this process, or in one process per device.

Jobs leave nothing behind but whole files, so one whose worker died is simply done again.
"""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import torch

from kornia_ditf.errors import StudyError
from kornia_ditf.study.define.jobs import Job, Outcome, Setup
from kornia_ditf.study.run.apart import end_with_parent
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

    @abstractmethod
    def close(self) -> None:
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
    death: type[Exception]
    """What is raised by the future of a worker that died."""

    @abstractmethod
    def _submit(self, place: int, job: Job | None) -> Future[Any]:
        """Send a job to a worker; without one, the worker reports its node once it runs."""

    @abstractmethod
    def _restart(self, place: int) -> None:
        """Replace a dead worker."""

    def _is_lost(self, node: Any) -> bool:
        """Whether a node was lost, and with it a worker that did nothing wrong."""
        return False

    def outcomes(self, jobs: Iterable[Job], follow: Follow = nothing_follows) -> Iterator[Done]:
        source, again = iter(jobs), deque[tuple[Job, int]]()
        nodes: dict[int, Any] = {}
        idle: list[int] = []
        dead = 0
        running: dict[Future[Any], tuple[int, Job | None, int]] = {
            self._submit(place, None): (place, None, 0) for place in range(self.workers)
        }
        while True:
            while idle:
                job, deaths = again.popleft() if again else (next(source, None), 0)
                if job is None:
                    break
                place = idle.pop()
                running[self._submit(place, job)] = place, job, deaths
            if idle and all(job is None for _, job, _ in running.values()):
                return
            done = wait(running, return_when=FIRST_COMPLETED).done
            future = next(each for each in running if each in done)
            place, job, deaths = running.pop(future)
            if not isinstance(future.exception(), self.death):
                outcome = future.result()
                idle.append(place)
                if job is None:
                    nodes[place] = outcome
                    continue
                again.extend((each, 0) for each in follow(job, outcome))
                yield job, outcome
                continue
            if job is None:
                dead += 1
                if dead == _DEATHS * self.workers:
                    raise StudyError(f"{dead} workers died before they received any work")
            else:
                deaths += not self._is_lost(nodes[place])
                again.append((job, deaths))
                if deaths == _DEATHS:
                    raise StudyError(
                        f"{_DEATHS} workers died of the same piece of work "
                        f"({type(job).__name__.lower()}); they may be out of memory: use fewer "
                        "workers, or a smaller model or long_side"
                    )
            self._restart(place)
            running[self._submit(place, None)] = place, None, 0


_own: Worker | None = None


def _begin(setup: Setup, device: str | None, threads: int, parent: int) -> None:
    global _own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends us
    end_with_parent(parent)
    torch.set_num_threads(threads)
    _own = Worker(setup, device)


def _do(job: Job | None) -> Outcome | None:
    assert _own is not None
    return None if job is None else _own.do(job)


def default_devices() -> list[str | None]:
    """Return all GPUs of this host, or the CPU twice if there is none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)] or ["cpu", "cpu"]


class Processes(Pooled):
    """Runs jobs in one process per device.

    Args:
        setup: of the workers.
        devices: one worker each; a device may be named several times.
    """

    death = BrokenProcessPool

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

    def _submit(self, place: int, job: Job | None) -> Future[Any]:
        try:
            return self._pools[place].submit(_do, job)
        except BrokenProcessPool:  # it died while it had nothing to do
            self._restart(place)
            return self._pools[place].submit(_do, job)

    def _restart(self, place: int) -> None:
        self._pools[place].shutdown(wait=False)
        self._pools[place] = self._pool(place)

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
