"""The engine that runs jobs on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from kornia_ditf.study.define.jobs import Job, Outcome, Setup
from kornia_ditf.study.run.engines import Pooled
from kornia_ditf.study.run.worker import Worker
from kornia_ditf.utils.cluster import on_cluster


class RayCluster(Pooled):
    """Runs jobs on actors of a Ray cluster, whose nodes share the study's folder.

    Args:
        setup: of the workers.
        address: of the cluster; None starts one on this machine.
        workers: number of actors.
        cpus: of each actor; fractions are well on small machines, where whole ones starve.
        gpus: of each actor.

    Raises:
        MissingExtraError: Ray is not installed.
        InvalidArgumentError: there is no cluster at the address.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        address: str | None = None,
        workers: int = 2,
        cpus: float = 0.5,
        gpus: float = 0.0,
    ) -> None:
        self._opened = ExitStack()
        self._ray: Any = self._opened.enter_context(on_cluster(address))
        self.workers = workers
        device = "cuda" if gpus else None
        actor: Any = self._ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus)
        self._start: Callable[[], Any] = lambda: actor.remote(setup, device)
        self._actors = [self._start() for _ in range(workers)]

    def _submit(self, place: int, job: Job) -> Any:
        return self._actors[place].do.remote(job)

    def _ready(self, pending: Sequence[Any]) -> Any:
        return self._ray.wait(list(pending), num_returns=1)[0][0]

    def _result(self, handle: Any) -> Outcome | None:
        try:
            outcome: Outcome = self._ray.get(handle)
            return outcome
        except self._ray.exceptions.RayActorError:
            return None

    def _restart(self, place: int) -> None:
        self._actors[place] = self._start()

    def close(self) -> None:
        for actor in self._actors:
            with suppress(Exception):
                self._ray.kill(actor)
        self._opened.close()
