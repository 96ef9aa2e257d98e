"""The tables of a report, with confidence intervals and significance tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from kornia_ditf.errors import StudyError
from kornia_ditf.metrics.statistics import Interval, holm, ratio
from kornia_ditf.study.report.scores import (
    ExperimentScores,
    Resampled,
    Score,
    checking,
    read_experiment,
)
from kornia_ditf.study.run.costs import Cost, cost_of, known_costs
from kornia_ditf.study.store.records import RECORDS

_ALL_PAIRS_UP_TO = 6
FEW_PAIRS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """Scores and costs of a configuration."""

    descriptor: str
    values: tuple[Interval, ...]
    experiment: Mapping[str, Any]
    cost: Cost

    @property
    def place(self) -> str:
        """Where it ran and in which dtype, as far as the study says."""
        dtype = self.experiment["settings"].get("dtype")
        return ", ".join(filter(None, (self.experiment["device"], dtype)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two configurations on the same pairs: first minus second, by the first score.

    `p` is the permutation test's, and `corrected` by Holm for all comparisons of the section.
    """

    first: str
    second: str
    difference: Interval
    p: float
    corrected: float


@dataclass(frozen=True, slots=True)
class Curve:
    """How the first score changes with a setting while nothing else changes."""

    setting: str
    label: str
    points: tuple[tuple[float, Interval], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A data set by a protocol.

    Args:
        protocol: as the summary has it.
        points: how many, of all pairs.
        definitions: what the scores mean.
        drawing: how pairs were drawn for the intervals.
        categories: of the heat map; empty where there is only one.
        heat: of each row and category, the first score.
        curves: over block and timestep.
        failed: label of each matcher without a score, and the reason.
    """

    dataset: str
    protocol: Mapping[str, Any]
    pairs: int
    points: int
    scores: tuple[Score, ...]
    definitions: tuple[str, ...]
    drawing: str
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    categories: tuple[str, ...]
    heat: tuple[tuple[float, ...], ...]
    curves: tuple[Curve, ...]
    failed: tuple[tuple[str, str], ...] = ()


def analyse(out: Path, summary: Mapping[str, Any]) -> list[Section]:
    """Compute all tables of a finished study.

    Args:
        out: the study's folder.
        summary: as `read_summary` gives it.

    Raises:
        StudyError: records are not such as their protocol gives.
    """
    costs = known_costs(out, summary)
    choice = summary["study"]["report"]
    sections = []
    for cell, rows in tables_of(summary).items():
        experiments = list(rows.values())
        failed = tuple(
            (each["descriptor"], each["reason"])
            for each in summary.get("failed", ())
            if (each["dataset"], each["protocol"]) == cell
        )
        with checking(out / RECORDS, experiments[0]):
            section = _section(out / RECORDS, experiments, costs, choice)
        sections.append(replace(section, failed=failed))
    return sections


def tables_of(
    summary: Mapping[str, Any],
) -> dict[tuple[str, str], dict[str, Mapping[str, Any]]]:
    """Return a study's experiments by data set and protocol, and there by their labels."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for each in summary["experiments"]:
        cell = each["dataset"], each["protocol"]["name"]
        found.setdefault(cell, {})[each["descriptor"]] = each
    return found


def _section(
    records: Path,
    experiments: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Cost],
    choice: Mapping[str, Any],
) -> Section:
    dataset, protocol = experiments[0]["dataset"], experiments[0]["protocol"]
    scored = [read_experiment(records, experiment) for experiment in experiments]
    first = scored[0]
    if len({len(each.names) for each in scored}) > 1:
        raise StudyError(f"{records}: configurations on {dataset!r} differ in number of pairs")
    resampled = Resampled(scored, choice)
    intervals, count = resampled.intervals(), len(first.scores)
    rows = tuple(
        Row(
            descriptor=experiment["descriptor"],
            values=tuple(intervals[place * count : (place + 1) * count]),
            experiment=experiment,
            cost=cost_of(experiment, costs),
        )
        for place, experiment in enumerate(experiments)
    )
    categories = tuple(sorted(set(first.categories)))
    return Section(
        dataset=dataset,
        protocol=protocol,
        pairs=len(first.names),
        points=first.points,
        scores=first.scores,
        definitions=first.definitions,
        drawing=resampled.method,
        rows=rows,
        comparisons=_compare(rows, resampled, choice["reference"]),
        categories=categories if len(categories) > 1 else (),
        heat=tuple(_by_category(each, categories) for each in scored),
        curves=tuple(_curves(rows)),
    )


def _compare(
    rows: Sequence[Row], resampled: Resampled, reference: str | None
) -> tuple[Comparison, ...]:
    labels = [row.descriptor for row in rows]
    if reference is None and len(rows) <= _ALL_PAIRS_UP_TO:
        couples = list(combinations(range(len(rows)), 2))
    else:
        base = labels.index(reference) if reference in labels else 0
        couples = [(place, base) for place in range(len(rows)) if place != base]
    count = len(rows[0].values)
    found = [resampled.difference(a * count, b * count) for a, b in couples]
    corrected = holm([p for _, p in found])
    return tuple(
        Comparison(labels[a], labels[b], difference, p, each)
        for (a, b), (difference, p), each in zip(couples, found, corrected, strict=True)
    )


def _by_category(scored: ExperimentScores, categories: Sequence[str]) -> tuple[float, ...]:
    names = np.array(scored.categories)
    return tuple(
        float(
            ratio(scored.numerators[names == name, :1], scored.denominators[names == name, :1])[0]
        )
        for name in categories
    )


def _curves(rows: Sequence[Row]) -> list[Curve]:
    """Find configurations that differ in their block or timestep alone."""
    found = []
    every = [row.experiment["settings"] for row in rows]
    varied = {
        key for one in every for key in one if any(one[key] != other.get(key) for other in every)
    }
    for setting in ("block", "timestep"):
        lines: dict[str, list[tuple[float, Interval]]] = {}
        for row in rows:
            settings = row.experiment["settings"]
            if setting in settings:
                shown = [f"{k} {v}" for k, v in settings.items() if k != setting and k in varied]
                line = lines.setdefault(" ".join([row.experiment["name"], *shown]), [])
                line.append((float(settings[setting]), row.values[0]))
        found += [
            Curve(setting, label, tuple(sorted(line, key=lambda point: point[0])))
            for label, line in lines.items()
            if len(line) > 1
        ]
    return found
