"""A study in; its records out, whatever interrupts: the same call goes on where it was stopped.

    list pairs -> prepare descriptors -> describe what is not described -> score what is not scored
    -> put the records together

Everything between two arrows is found again by its key, so a run that was killed, or whose files
were damaged or removed, repeats only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from kornia_ditf.errors import StudyError
from kornia_ditf.study.define.forwards import group_configurations, last_blocks
from kornia_ditf.study.define.jobs import Describe, Evaluate, Setup, Unit
from kornia_ditf.study.define.listing import Item, list_study
from kornia_ditf.study.define.presets import preset_notes
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run.costs import CostLog
from kornia_ditf.study.run.engines import Engine, Local
from kornia_ditf.study.run.experiments import Cell, lay_out_cells
from kornia_ditf.study.run.preparation import Task, prepare, tasks_of
from kornia_ditf.study.run.summary import write_summary
from kornia_ditf.study.store.cache import DamagedFileError, MapCache
from kornia_ditf.study.store.folder import locked, refuse_links
from kornia_ditf.study.store.records import RECORDS, check_records, done_keys, write_records
from kornia_ditf.utils import provenance
from kornia_ditf.utils.files import sweep

Piece = TypeVar("Piece")

_PASSES = 4
_IMAGES_AT_ONCE = 2
_PAIRS_AT_ONCE = 16
_TOLD = 3


class Watcher(Protocol):
    """Is told how a run goes."""

    def begin(self, stage: str, total: int) -> None:
        """Hear that a stage begins, and how many images or pairs it has; 0 is unknown."""

    def advance(self, count: int) -> None:
        """Hear that so many more are done."""

    def warn(self, message: str) -> None:
        """Hear of something to know, such as a damaged file that is made again."""


class Quiet:
    """A `Watcher` that keeps what it hears to itself."""

    def begin(self, stage: str, total: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def warn(self, message: str) -> None: ...


def run_study(
    study: Study,
    out: Path,
    *,
    cache: Path | None = None,
    engine: Callable[[Setup], Engine] = Local,
    device: str | None = None,
    watcher: Watcher | None = None,
) -> Path:
    """Describe what is not described, score what is not scored, and write the records.

    Args:
        study: what to run.
        out: the study's folder; made where it is missing.
        cache: folder of the descriptor maps; None is one inside `out`.
        engine: makes what does the work.
        device: where the engine's workers describe; None leaves it to the study.
        watcher: is told how it goes.

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
        sets = list_study(study)
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
            cells = lay_out_cells(study, sets, tasks, prepared, out.absolute() / "records")
            run = _Run(out, maps, workers, listen, tasks, cells)
            run.work()
        finally:
            workers.close()
        path = run.finish()
        write_summary(out, study, tasks, prepared, cells, started)
        return path


Pending = list[tuple[Cell, list[Item]]]


@dataclass(slots=True)
class _Run:
    out: Path
    cache: MapCache
    engine: Engine
    watcher: Watcher
    tasks: Sequence[Task]
    cells: Sequence[Cell]

    def work(self) -> None:
        """Describe and score until nothing is pending."""
        failures: list[str] = []
        for _ in range(_PASSES):
            pending = self._pending()
            if not pending:
                return
            failures = self._do("describing images", list(self._descriptions(pending)))
            failures += self._do("scoring pairs", list(self._evaluations(pending)))
            if failures:
                break
        left = sum(len(pairs) for _, pairs in self._pending())
        if left:
            told = list(dict.fromkeys(failures)) or ["files that were written are damaged again"]
            more = f" (and {len(told) - _TOLD} more)" if len(told) > _TOLD else ""
            raise StudyError(
                f"{left} records are missing: {'; '.join(told[:_TOLD])}{more}. What succeeded is "
                "kept; put this right and run the study again"
            )

    def finish(self) -> Path:
        """Put the records together, unless they are there and sound."""
        self.watcher.begin("putting the records together", 0)
        path = self.out / RECORDS
        if path.exists():
            try:
                check_records(path)
            except DamagedFileError as error:
                self.watcher.warn(f"{error}; it is put together again")
        cells = (
            (
                {
                    "descriptor": cell.configuration.label,
                    "dataset": cell.listed.label,
                    "protocol": cell.protocol.name,
                },
                cell.folder,
                [(pair.index, pair.key) for pair in cell.items],
            )
            for cell in self.cells
        )
        try:
            write_records(path, cells)
        except DamagedFileError as error:
            raise StudyError(f"{error}; run the study again") from error
        return path

    def _pending(self) -> Pending:
        """List the cells that lack records, with the pairs in an order that shares images."""
        found: Pending = []
        done: dict[Path, set[str]] = {}
        for cell in self.cells:
            if cell.folder not in done:
                done[cell.folder], damaged = done_keys(cell.folder)
                for error in damaged:
                    self.watcher.warn(f"{error}; its pairs are scored again")
            pairs = {p.key: p for p in cell.items if p.key not in done[cell.folder]}
            done[cell.folder].update(pairs)  # another cell may keep its records there as well
            if pairs:
                order = sorted(pairs.values(), key=lambda pair: pair.images)
                found.append((cell, order))
        return found

    def _descriptions(self, pending: Pending) -> Iterator[Unit]:
        """List the images that lack maps, each once for all configurations of a forward pass."""
        wanted: dict[int, dict[tuple[str, str | None], dict[str, str]]] = {}
        claimed: set[str] = set()
        members: dict[int, dict[str, Cell]] = {}
        for cell, pairs in pending:
            images = wanted.setdefault(cell.task, {})
            members.setdefault(cell.task, {})[cell.configuration.label] = cell
            for pair in pairs:
                for path, prompt, key in cell.images(pair):
                    if key not in claimed and not self.cache.has(key):
                        claimed.add(key)
                        images.setdefault((path, prompt), {})[cell.configuration.label] = key
        for place in sorted(wanted):
            listed = [(path, prompt, keys) for (path, prompt), keys in wanted[place].items()]
            task = self.tasks[place]
            channels = {label: cell.channels for label, cell in members[place].items()}
            identities = {label: cell.identity for label, cell in members[place].items()}
            for some in _pieces(listed, _IMAGES_AT_ONCE):
                yield Describe(task.group, channels, task.fit, some, identities)

    def _evaluations(self, pending: Pending) -> Iterator[Unit]:
        """List the pairs whose maps are there."""
        for cell, pairs in pending:
            ready = []
            for pair in pairs:
                keys = tuple(key for _, _, key in cell.images(pair))
                if all(map(self.cache.has, keys)):
                    ready.append((pair.index, pair.key, keys))
            for some in _pieces(ready, _PAIRS_AT_ONCE):
                yield Evaluate(
                    cell.listed.choice, cell.identity, cell.protocol, str(cell.folder), some
                )

    def _do(self, stage: str, units: Sequence[Unit]) -> list[str]:
        """Do units, log what they cost, and list what failed."""
        failures: list[str] = []
        costs = CostLog(self.out)
        self.watcher.begin(stage, sum(map(_size, units)))
        for unit, outcome in self.engine.outcomes(units):
            self.watcher.advance(_size(unit))
            failures += outcome.failures
            for damaged in outcome.damaged:
                self.watcher.warn(f"{damaged}; it is made again")
            costs.add(unit, outcome)
        return failures


def _size(unit: Unit) -> int:
    if isinstance(unit, Describe):
        return len(unit.images)
    return len(unit.pairs) if isinstance(unit, Evaluate) else 1


def _pieces(items: Sequence[Piece], count: int) -> Iterator[tuple[Piece, ...]]:
    return (tuple(items[start : start + count]) for start in range(0, len(items), count))
