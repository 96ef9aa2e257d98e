"""A leaderboard of bundles: one page that works from a file, and its rows as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kornia_ditf.errors import DiTFError, StudyError
from kornia_ditf.metrics.statistics import Interval
from kornia_ditf.study.define.spec import ReportChoice
from kornia_ditf.study.report.analysis import Row
from kornia_ditf.study.report.costing import COSTS, CostKind
from kornia_ditf.study.report.exports import csv_table
from kornia_ditf.study.report.page import environment, write_texts
from kornia_ditf.study.report.scores import ExperimentScores, Resampled, Score, read_experiment
from kornia_ditf.study.run.costs import cost_of, known_costs
from kornia_ditf.study.share.bundle import read_bundle
from kornia_ditf.study.store.cache import content_key
from kornia_ditf.study.store.records import RECORDS, read_records
from kornia_ditf.utils.files import make_folder, os_errors_as

FILES = ("index.html", "leaderboard.csv")

_NOT_SCORING = ("name", "source", "hints", "datasets")
_COSTS = tuple(kind for kind in COSTS if kind.key != "together")
_COLUMNS = (
    *("dataset", "protocol", "task", "pairs", "descriptor", "score", "value", "low", "high"),
    *("license", *(kind.key for kind in _COSTS), "device", "processor"),
    *("kornia_ditf", "finished", "bundle"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a board: one descriptor or matcher of a bundle, and that bundle's summary."""

    row: Row
    bundle: str
    study: Mapping[str, Any]

    @property
    def license(self) -> str:
        """Of the weights, as far as the bundle says."""
        return self.row.experiment.get("license") or "not known"

    @property
    def costs(self) -> dict[str, float | None]:
        """What was measured, by `CostKind.key`, in the units of the columns."""
        return {kind.key: kind.value(self.row) for kind in _COSTS}


@dataclass(slots=True)
class Board:
    """All that bundles hold on the same pairs by the same protocol, the best first.

    `dataset` is what the first bundle calls the data set.
    """

    dataset: str
    protocol: Mapping[str, Any]
    pairs: int
    scores: tuple[Score, ...]
    definitions: tuple[str, ...]
    entries: list[Entry] = field(default_factory=list)

    @property
    def costs(self) -> tuple[CostKind, ...]:
        """Those that were measured for any entry."""
        return tuple(
            kind
            for kind in _COSTS
            if any(entry.costs[kind.key] is not None for entry in self.entries)
        )


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Boards in the order in which their pairs first come, and their bundles.

    Bundles that were left out are named in sentences, each with the reason.
    """

    boards: tuple[Board, ...]
    bundles: tuple[Path, ...]
    left_out: tuple[str, ...]


def collect_bundles(folder: Path) -> Leaderboard:
    """Read every bundle in a folder.

    Intervals are computed anew, with the same settings for all. Results stand in one board where
    protocol and pairs are the same, whatever they are called.

    Args:
        folder: of bundles; other files, and folders that hold no study, are passed over.

    Raises:
        StudyError: it holds no bundle that can be read.
    """
    boards: dict[str, Board] = {}
    read: list[Path] = []
    left_out: list[str] = []
    for path in sorted(_candidates(folder)):
        try:
            summary = read_bundle(path)
            found = [_entry(path, summary, each) for each in summary["experiments"]]
        except DiTFError as error:
            reason = str(error).replace(f"{folder}/", "")  # the page may be shown to anybody
            left_out.append(f"{path.name} is left out: {reason}")
            continue
        read.append(path)
        for scored, entry in found:
            experiment = entry.row.experiment
            board = boards.setdefault(
                _key(path, experiment, scored),
                Board(
                    experiment["dataset"],
                    experiment["protocol"],
                    len(scored.names),
                    scored.scores,
                    scored.definitions,
                ),
            )
            board.entries.append(entry)
    if not read:
        reason = "; ".join(left_out) or "type `kornia-ditf study bundle DIR` to make one"
        raise StudyError(f"there is no bundle in {folder} ({reason})")
    for board in boards.values():
        board.entries.sort(key=lambda entry: -np.nan_to_num(entry.row.values[0].value))
    return Leaderboard(tuple(boards.values()), tuple(read), tuple(left_out))


def write_leaderboard(leaderboard: Leaderboard, out: Path) -> list[Path]:
    """Write index.html and leaderboard.csv; the same bundles give the same bytes.

    Args:
        leaderboard: what to write.
        out: a folder; made where it is missing.

    Returns:
        the files.

    Raises:
        OutputError: one cannot be written.
    """
    make_folder(out)
    choices = {
        "task": {board.protocol["task"] for board in leaderboard.boards},
        "protocol": {board.protocol["name"] for board in leaderboard.boards},
        "data set": {board.dataset for board in leaderboard.boards},
        "licence": {e.license for board in leaderboard.boards for e in board.entries},
    }
    context = {
        "boards": leaderboard.boards,
        "bundles": leaderboard.bundles,
        "left_out": leaderboard.left_out,
        "costs": [
            kind for kind in _COSTS if any(kind in board.costs for board in leaderboard.boards)
        ],
        "choices": {name: sorted(values) for name, values in choices.items()},
        "confidence": ReportChoice().confidence,
    }
    page = environment("index.html").get_template("leaderboard.html.j2").render(context)
    rows = (
        _csv_row(board, entry, score, value)
        for board in leaderboard.boards
        for entry in board.entries
        for score, value in zip(board.scores, entry.row.values, strict=True)
    )
    return write_texts(out, dict(zip(FILES, (page, csv_table(_COLUMNS, rows)), strict=True)))


def _candidates(folder: Path) -> Iterator[Path]:
    with os_errors_as(StudyError, f"cannot read {folder}", "name a folder"):
        for path in folder.iterdir():
            if path.name[:1] != "." and path.is_dir() and any(path.glob("study.*")):
                yield path


def _entry(
    bundle: Path, summary: Mapping[str, Any], experiment: Mapping[str, Any]
) -> tuple[ExperimentScores, Entry]:
    scored = read_experiment(bundle / RECORDS, experiment)
    row = Row(
        descriptor=experiment["descriptor"],
        values=tuple(Resampled([scored], ReportChoice().model_dump()).intervals()),
        experiment=experiment,
        cost=cost_of(experiment, known_costs(bundle, summary)),
    )
    return scored, Entry(row, bundle.name, summary)


def _key(bundle: Path, experiment: Mapping[str, Any], scored: ExperimentScores) -> str:
    """Return a digest of the pairs, their points, and all of a protocol that decides scores."""
    columns = ["pair", "category", "image_a", "image_b"]
    if experiment["protocol"]["task"] == "keypoints":
        columns += ["points_a", "true_b", "base"]
    table = read_records(bundle / RECORDS, experiment, columns)
    protocol = {k: v for k, v in experiment["protocol"].items() if k not in _NOT_SCORING}
    scores = [score.name for score in scored.scores]
    return content_key(pairs=table.to_pydict(), protocol=protocol, scores=scores)


def _csv_row(board: Board, entry: Entry, score: Score, value: Interval) -> Sequence[Any]:
    protocol, study = board.protocol, entry.study
    return (
        *(board.dataset, protocol["name"], protocol["task"], board.pairs, entry.row.descriptor),
        *(score.name, value.value, value.low, value.high, entry.license),
        *entry.costs.values(),
        *(entry.row.experiment["device"], study["hardware"]["processor"]),
        *(study["versions"]["kornia-ditf"], study["finished"], entry.bundle),
    )
