"""The engine that runs jobs on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import Any

from kornia_ditf.study.define.jobs import Job, Setup
from kornia_ditf.study.run.engines import Pooled
from kornia_ditf.study.run.worker import Worker
from kornia_ditf.utils.cluster import on_cluster

_STORE_BYTES = 100 * 2**20  # jobs and outcomes are small; maps never pass through it


class RayCluster(Pooled):
    """Runs jobs on actors of a Ray cluster, whose nodes share the study's folder.

    An actor is given work once it runs, so a cluster may grow up to `workers` while the study does,
    and lose nodes; work that was lost with a node is done again, however often that happens.

    Args:
        setup: of the workers.
        address: of the cluster; None starts one on this machine.
        workers: number of actors, at most.
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
        self._ray: Any = self._opened.enter_context(on_cluster(address, store_bytes=_STORE_BYTES))
        self.workers = workers
        device = "cuda" if gpus else None
        actor: Any = self._ray.remote(_Actor).options(num_cpus=cpus, num_gpus=gpus)
        self._start: Callable[[], Any] = lambda: actor.remote(setup, device)
        self._actors = [self._start() for _ in range(workers)]
        self.death = self._ray.exceptions.RayActorError

    def _submit(self, place: int, job: Job | None) -> Future[Any]:
        future: Future[Any] = self._actors[place].do.remote(job).future()
        return future

    def _restart(self, place: int) -> None:
        self._actors[place] = self._start()

    def _is_lost(self, node: Any) -> bool:
        return node not in {each["NodeID"] for each in self._ray.nodes() if each["Alive"]}

    def close(self) -> None:
        for actor in self._actors:
            with suppress(Exception):
                self._ray.kill(actor)
        self._opened.close()


class _Actor(Worker):
    """A worker that, without a job, says on which node it runs."""

    def do(self, job: Job | None) -> Any:
        if job is not None:
            return super().do(job)
        ray: Any = import_module("ray")
        return str(ray.get_runtime_context().get_node_id())
