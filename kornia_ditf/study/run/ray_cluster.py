"""The engine that runs jobs on a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from kornia_ditf.errors import InvalidArgumentError, MissingExtraError
from kornia_ditf.study.define.jobs import Job, Outcome, Setup
from kornia_ditf.study.run.engines import Pooled
from kornia_ditf.study.run.worker import Worker


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
        # Ray would call home, and warn of a default that will change.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            self._ray: Any = import_module("ray")
        except ImportError as error:
            raise MissingExtraError(
                "--engine ray needs ray; type `pip install 'kornia-ditf[study-ray]'`"
            ) from error
        self.workers = workers
        self._started = not self._ray.is_initialized()
        if self._started:
            here: Any = {} if address else {"include_dashboard": False, "num_cpus": os.cpu_count()}
            try:
                self._ray.init(
                    address or "local", log_to_driver=False, logging_level=logging.ERROR, **here
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InvalidArgumentError(
                    f"there is no Ray cluster at {address!r} ({error}); start one with "
                    "`ray start --head`, or leave out --address"
                ) from error
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
        if self._started:
            self._ray.shutdown()
