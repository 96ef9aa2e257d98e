"""Every engine gives the same records, and outlives its workers."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kornia_ditf.errors import StudyError
from kornia_ditf.study.define.jobs import Describe, Evaluate, Job, Outcome, Setup
from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run import pipeline
from kornia_ditf.study.run.engines import Engine, Local, Pooled, Processes
from kornia_ditf.study.run.ray_cluster import RayCluster
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.utils.progress import Quiet


@pytest.fixture
def study(make_study: Any) -> Study:
    return read_study(make_study(pairs=6))


class KillsOnce(Quiet):
    """A watcher that, when the first work is done, ends a worker as the system might."""

    def __init__(self, kill: Any) -> None:
        self.kill, self.engines, self.killed = kill, [], False

    def make(self, engine: Any, setup: Setup) -> Engine:
        self.engines.append(engine(setup))
        return self.engines[-1]

    def advance(self, count: int) -> None:
        if not self.killed:
            self.killed = True
            self.kill(self.engines[-1])


def check_that_it_survives(study: Study, tmp_path: Path, engine: Any, kill: Any) -> None:
    expected = pq.read_table(run_study(study, tmp_path / "local"))
    watcher = KillsOnce(kill)
    path = run_study(study, tmp_path / "out", engine=partial(watcher.make, engine), watcher=watcher)
    assert watcher.killed
    assert pq.read_table(path).equals(expected)


@pytest.mark.slow
def test_processes_outlive_a_worker_that_is_killed(study: Study, tmp_path: Path) -> None:
    def kill(engine: Any) -> None:
        for process in engine._pools[0]._processes.values():
            os.kill(process.pid, signal.SIGKILL)

    check_that_it_survives(study, tmp_path, partial(Processes, devices=["cpu"]), kill)


@pytest.mark.slow
def test_ray_on_halves_of_two_cores_outlives_an_actor_that_is_killed(
    study: Study, tmp_path: Path
) -> None:
    def kill(engine: Any) -> None:
        engine._ray.kill(engine._actors[0])

    check_that_it_survives(study, tmp_path, partial(RayCluster, workers=2, cpus=0.5), kill)


class Mortal(Pooled):
    """A pool whose worker dies so many times before it does its work."""

    def __init__(self, deaths: int) -> None:
        self.workers, self.deaths, self.restarted = 2, deaths, 0

    death = BrokenPipeError

    def _submit(self, place: int, job: Job | None) -> Future[Any]:
        future: Future[Any] = Future()
        self.deaths -= job is not None
        if job is not None and self.deaths >= 0:
            future.set_exception(BrokenPipeError())
        else:
            future.set_result(Outcome(count=1))
        return future

    def close(self) -> None: ...

    def _restart(self, place: int) -> None:
        self.restarted += 1


def job() -> Evaluate:
    return Evaluate(None, "", None, "", (), "cpu")  # type: ignore[arg-type]


def test_what_a_dead_worker_was_doing_is_done_again() -> None:
    engine = Mortal(deaths=2)
    jobs = [job() for _ in range(5)]
    done = [each for each, _ in engine.outcomes(jobs)]
    assert sorted(map(id, done)) == sorted(map(id, jobs))
    assert engine.restarted == 2


def test_what_an_outcome_makes_possible_is_run_before_what_waits() -> None:
    first, later, possible = [job() for _ in range(4)], job(), job()
    engine = Mortal(deaths=1)
    jobs = engine.outcomes([*first, later], lambda each, _: [possible] if each is first[0] else [])
    done = [id(each) for each, _ in jobs]
    assert sorted(done) == sorted(map(id, [*first, later, possible]))
    assert done.index(id(possible)) < done.index(id(later))


def test_pairs_are_scored_while_other_images_are_described(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[type] = []

    class Noting(Local):
        def outcomes(self, *given: Any) -> Any:
            for each, outcome in super().outcomes(*given):
                order.append(type(each))
                yield each, outcome

    monkeypatch.setattr(pipeline, "PAIRS_AT_ONCE", 1)
    run_study(study, tmp_path / "out", engine=Noting)
    last = len(order) - 1 - order[::-1].index(Describe)
    assert Evaluate in order[:last] and Evaluate in order[last:]


def test_work_that_kills_every_worker_ends_the_run() -> None:
    with pytest.raises(StudyError, match="3 workers died of the same piece of work"):
        list(Mortal(deaths=100).outcomes([job()]))


def test_the_local_engine_does_units_in_order(tmp_path: Path) -> None:
    engine = Local(Setup(str(tmp_path), "float32", {}))
    assert list(engine.outcomes([])) == []


def test_a_descriptor_that_cannot_be_loaded_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    from kornia_ditf.protocols.protocol import Fit
    from kornia_ditf.study.define.forwards import ForwardGroup
    from kornia_ditf.study.define.spec import Configuration

    member = Configuration("broken", "nano", str(tmp_path), {})
    group = ForwardGroup("nano", str(tmp_path), {}, {}, (member,))
    engine = Local(Setup(str(tmp_path), "float32", {}))
    describe = Describe(group, {}, Fit(), (), {})
    ((_, outcome),) = engine.outcomes([describe])
    assert outcome.failures and outcome.failures[0].startswith("broken: ")
