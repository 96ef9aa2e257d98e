"""Running a study; the same call resumes one that was interrupted.

    list pairs -> prepare descriptors -> describe what is not described, and score what is not
    scored as soon as its images are -> put the records together

Everything between two arrows is found again by its key, so a run that was killed, or whose files
were damaged or removed, repeats only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kornia_ditf.errors import DamagedFileError, StudyError
from kornia_ditf.study.define.forwards import group_configurations, last_blocks
from kornia_ditf.study.define.jobs import Compare, Describe, Setup
from kornia_ditf.study.define.listing import Sample, list_study
from kornia_ditf.study.define.presets import preset_notes
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run.costs import CostLog
from kornia_ditf.study.run.engines import Engine, Local
from kornia_ditf.study.run.experiments import (
    DescriptorExperiment,
    Experiment,
    MatcherExperiment,
    TableCell,
    list_experiments,
    list_matcher_experiments,
)
from kornia_ditf.study.run.pipeline import PAIRS_AT_ONCE, Pending, Pipeline, pieces, size
from kornia_ditf.study.run.preparation import Task, prepare, tasks_of
from kornia_ditf.study.run.summary import write_summary
from kornia_ditf.study.store.cache import MapCache
from kornia_ditf.study.store.folder import locked, refuse_links
from kornia_ditf.study.store.records import RECORDS, done_keys, write_records
from kornia_ditf.utils import provenance
from kornia_ditf.utils.cache import check_sound
from kornia_ditf.utils.files import sweep
from kornia_ditf.utils.progress import Progress, Quiet

_PASSES = 4
_TOLD = 3


def run_study(
    study: Study,
    out: Path,
    *,
    cache: Path | None = None,
    engine: Callable[[Setup], Engine] = Local,
    device: str | None = None,
    watcher: Progress | None = None,
    part: tuple[int, int] | None = None,
) -> Path:
    """Run a study: compute what is missing, and write the records.

    Args:
        study: what to run.
        out: the study's folder; made where it is missing.
        cache: folder of the descriptor maps; None is one inside `out`.
        engine: makes what does the work.
        device: where the engine's workers describe; None leaves it to the study.
        watcher: is told how it goes.
        part: score one of several equal parts of the pairs, as (number, count); studies of the
            others are merged with it.

    Returns:
        the file of records.

    Raises:
        StudyError: another run works in the folder, or a part of the work failed; what succeeded
            is kept.
        InvalidArgumentError: a name or value in the study is wrong.
        DatasetError: a data set's files are missing or malformed.
        OutputError: the folder cannot be written.
    """
    listen = watcher or Quiet()
    started = provenance.now()
    with locked(out):
        sets = list_study(study, part)
        for note in preset_notes(study, sets):
            listen.warn(note)
        groups = group_configurations(study.configurations())
        tasks = tasks_of(groups, sets)
        maps = MapCache((out / "cache" if cache is None else cache).absolute())
        if cache is not None:
            refuse_links(cache)
            sweep(cache)
        workers = engine(Setup(str(maps.folder), study.cache_dtype, last_blocks(groups)))
        try:
            listen.begin("loading descriptors", 0)
            prepared = prepare(
                tasks, sets, workers, out / "prepared", device=device, warn=listen.warn
            )
            records = out.absolute() / "records"
            described = list_experiments(study, sets, tasks, prepared, records)
            matched = list_matcher_experiments(study, sets, records)
            run = _Run(out, maps, workers, listen)
            run.describe_and_score(described, tasks)
            failed = run.match(matched)
        finally:
            workers.close()
        without = {(each["descriptor"], each["dataset"], each["protocol"]) for each in failed}
        scored = [each for each in [*described, *matched] if each.cell not in without]
        if not scored:
            causes = "; ".join(f"{each['descriptor']}: {each['reason']}" for each in failed)
            raise StudyError(f"nothing has a score: {causes}")
        tables = [(each.label, protocol.name) for each in sets for protocol, _ in each.protocols]
        scored.sort(key=lambda each: tables.index(each.cell[1:]))
        path = run.assemble(scored)
        write_summary(out, study, scored, failed, started, part)
        return path


AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)


@dataclass(frozen=True, slots=True)
class _Run:
    out: Path
    cache: MapCache
    engine: Engine
    watcher: Progress

    def describe_and_score(
        self, experiments: Sequence[DescriptorExperiment], tasks: Sequence[Task]
    ) -> None:
        """Describe images and score pairs until nothing is pending."""
        failures: list[str] = []
        for _ in range(_PASSES):
            pending = self._pending(experiments)
            if not pending:
                return
            failures = self._pass(pending, tasks)
            if failures:
                break
        left = sum(len(pairs) for _, pairs in self._pending(experiments))
        if left:
            causes = list(dict.fromkeys(failures)) or ["files that were written are damaged again"]
            more = f" (and {len(causes) - _TOLD} more)" if len(causes) > _TOLD else ""
            raise StudyError(
                f"{left} records are missing: {'; '.join(causes[:_TOLD])}{more}. All other results "
                "are kept; fix this and run the study again"
            )

    def _pass(self, pending: Pending, tasks: Sequence[Task]) -> list[str]:
        """Describe images and score pairs once, and return what failed."""
        failures: list[str] = []
        costs, scored = CostLog(self.out), 0
        jobs = Pipeline(pending, tasks, self.cache.has)
        self.watcher.begin("describing images", size(jobs.descriptions))
        shown = jobs.described
        pairs = sum(len(each) for _, each in pending)
        if shown:
            self.watcher.begin("scoring pairs", pairs)
        for job, outcome in self.engine.outcomes(jobs.first(), jobs.follow):
            failures += outcome.failures
            for damaged in outcome.damaged:
                self.watcher.warn(f"{damaged}; it is made again")
            costs.add(job, outcome)
            scored += 0 if isinstance(job, Describe) else size([job])
            if shown or isinstance(job, Describe):
                self.watcher.advance(size([job]))
            if jobs.described and not shown:  # pairs are shown once no image is left
                shown = True
                self.watcher.begin("scoring pairs", pairs)
                self.watcher.advance(scored)
        return failures

    def match(self, experiments: Sequence[MatcherExperiment]) -> list[dict[str, str]]:
        """Match what has no records, and return the cells that stay without, with the reason."""
        reasons: dict[TableCell, list[str]] = {each.cell: [] for each in experiments}
        order = list(dict.fromkeys(each.label for each in experiments))  # each is loaded once
        pending = sorted(self._pending(experiments), key=lambda each: order.index(each[0].label))
        jobs: list[tuple[Compare, TableCell]] = [
            (_comparison(experiment, some), experiment.cell)
            for experiment, pairs in pending
            for some in pieces(pairs, PAIRS_AT_ONCE)
        ]
        if jobs:
            costs, cells = CostLog(self.out), {id(job): cell for job, cell in jobs}
            self.watcher.begin("matching pairs", size(job for job, _ in jobs))
            for job, outcome in self.engine.outcomes(job for job, _ in jobs):
                self.watcher.advance(size([job]))
                reasons[cells[id(job)]] += outcome.failures
                costs.add(job, outcome)
        failed = []
        for experiment, _ in self._pending(experiments):
            cell = experiment.cell
            causes = list(dict.fromkeys(reasons[cell])) or ["pairs were not matched"]
            more = f" (and {len(causes) - 1} more reasons)" if len(causes) > 1 else ""
            failed.append({**cell._asdict(), "reason": f"{causes[0]}{more}"})
            self.watcher.warn(
                f"{cell.descriptor} on {cell.dataset} by {cell.protocol} has no score: "
                f"{causes[0]}{more}"
            )
        return failed

    def assemble(self, experiments: Sequence[Experiment]) -> Path:
        """Put the records together."""
        self.watcher.begin("putting the records together", 0)
        path = self.out / RECORDS
        if path.exists():
            try:
                check_sound(path)
            except DamagedFileError as error:
                self.watcher.warn(f"{error}; it is put together again")
        parts = (
            (each.cell._asdict(), each.folder, [(pair.index, pair.key) for pair in each.samples])
            for each in experiments
        )
        try:
            write_records(path, parts)
        except DamagedFileError as error:
            raise StudyError(f"{error}; run the study again") from error
        return path

    def _pending(
        self, experiments: Sequence[AnyExperiment]
    ) -> list[tuple[AnyExperiment, list[Sample]]]:
        """List the experiments that lack records, with the pairs in an order that shares images."""
        found: list[tuple[AnyExperiment, list[Sample]]] = []
        done: dict[Path, set[str]] = {}
        for experiment in experiments:
            if experiment.folder not in done:
                done[experiment.folder], damaged = done_keys(experiment.folder)
                for error in damaged:
                    self.watcher.warn(f"{error}; its pairs are scored again")
            pairs = {p.key: p for p in experiment.samples if p.key not in done[experiment.folder]}
            done[experiment.folder].update(pairs)  # others may keep records there as well
            if pairs:
                order = sorted(pairs.values(), key=lambda pair: pair.images)
                found.append((experiment, order))
        return found


def _comparison(experiment: MatcherExperiment, pairs: Sequence[Sample]) -> Compare:
    return Compare(
        experiment.listed.choice,
        experiment.identity,
        experiment.protocol,
        str(experiment.folder),
        tuple((pair.index, pair.key, ()) for pair in pairs),
        experiment.matcher,
    )
