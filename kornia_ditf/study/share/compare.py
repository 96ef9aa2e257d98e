"""Two studies side by side: what differs between them, cell by cell, and whether it is real."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from kornia_ditf.errors import StudyError
from kornia_ditf.metrics.statistics import Interval, holm
from kornia_ditf.study.report.analysis import tables_of
from kornia_ditf.study.report.page import environment
from kornia_ditf.study.report.scores import ExperimentScores, Resampled, read_experiment
from kornia_ditf.study.run.summary import read_finished
from kornia_ditf.study.share.merge import differences, incomparable, settings_of
from kornia_ditf.study.store.records import RECORDS

Experiment: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CellDifference:
    """One score of one descriptor on one data set, in two studies.

    Args:
        descriptor: label of the descriptor; `A against B` where the studies have one each.
        difference: b minus a on the same pairs, with its interval.
        p: of the paired permutation test, two-sided.
        corrected: by Holm, for all cells of the comparison.
    """

    dataset: str
    protocol: str
    descriptor: str
    score: str
    a: float
    b: float
    difference: Interval
    p: float
    corrected: float


@dataclass(frozen=True, slots=True)
class StudyComparison:
    """Two studies, compared.

    Args:
        cells: what both evaluated.
        left_out: what only one of them evaluated, or not in the same way, in sentences.
        settings: what else differs, as (name, value in A, value in B).
        confidence: of the intervals.
    """

    cells: tuple[CellDifference, ...]
    left_out: tuple[str, ...]
    settings: tuple[tuple[str, Any, Any], ...]
    confidence: float


def compare_studies(a: Path, b: Path) -> StudyComparison:
    """Compare what two studies, or bundles, measured on the same pairs.

    Descriptors are compared with those of the same label; where both studies have one descriptor
    on a data set, these two. The settings of the report are those of A.

    Args:
        a: folder of the first study.
        b: folder of the second.

    Raises:
        StudyError: one is not finished or damaged, or nothing in them can be compared.
    """
    studies = read_finished(a), read_finished(b)
    choice = studies[0]["study"]["report"]
    cells: list[CellDifference] = []
    left_out: list[str] = []
    compared: list[tuple[Experiment, Experiment]] = []
    for first, second, reason in _couples(*studies):
        if first is None or second is None:
            left_out.append(reason)
            continue
        scored = read_experiment(a / RECORDS, first), read_experiment(b / RECORDS, second)
        columns = (
            {"pair": each.names, "category": each.categories, "image_a": each.images}
            for each in scored
        )
        reason = incomparable(first, second, *columns)
        if reason:
            left_out.append(f"{_name(first)}: {reason}")
        else:
            cells += _cells(first, second, scored, choice)
            compared.append((first, second))
    if not cells:
        raise StudyError(f"nothing in {a} and {b} can be compared: {'; '.join(left_out)}")
    corrected = holm([cell.p for cell in cells])
    return StudyComparison(
        tuple(replace(cell, corrected=p) for cell, p in zip(cells, corrected, strict=True)),
        tuple(left_out),
        tuple(_settings(*studies, compared)),
        choice["confidence"],
    )


def comparison_page(comparison: StudyComparison, a: str, b: str) -> str:
    """Return a comparison as one HTML page; `a` and `b` name the studies."""
    template = environment("compare.html").get_template("compare.html.j2")
    return template.render(comparison=comparison, a=a, b=b)


def _couples(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> Iterator[tuple[Experiment | None, Experiment | None, str]]:
    """Iterate over the experiments of both; unmatched ones come with a reason."""
    tables = tables_of(a), tables_of(b)
    for key in {**tables[0], **tables[1]}:
        rows_a, rows_b = (table.get(key, {}) for table in tables)
        if len(rows_a) == len(rows_b) == 1:
            yield next(iter(rows_a.values())), next(iter(rows_b.values())), ""
            continue
        for label in {**rows_a, **rows_b}:
            own, other = rows_a.get(label), rows_b.get(label)
            alone = own or other
            side = "A" if other is None else "B"
            yield own, other, f"{_name(alone)}: only in {side}" if alone else ""


def _cells(
    a: Experiment, b: Experiment, scored: Sequence[ExperimentScores], choice: Mapping[str, Any]
) -> Iterator[CellDifference]:
    resampled, count = Resampled(scored, choice), len(scored[0].scores)
    label = a["descriptor"]
    if label != b["descriptor"]:
        label = f"{label} against {b['descriptor']}"
    for of_a, score in enumerate(scored[0].scores):
        of_b = count + of_a
        difference, p = resampled.difference(of_b, of_a)
        yield CellDifference(
            dataset=a["dataset"],
            protocol=a["protocol"]["name"],
            descriptor=label,
            score=score.name,
            a=float(resampled.values[of_a]),
            b=float(resampled.values[of_b]),
            difference=difference,
            p=p,
            corrected=p,
        )


def _settings(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    compared: list[tuple[Experiment, Experiment]],
) -> Iterator[tuple[str, Any, Any]]:
    yield from differences(settings_of(a), settings_of(b))
    for name in ("versions", "hardware", "commit"):
        yield from differences(a[name], b[name], name)
    for first, second in compared:
        for name in ("name", "settings", "channels", "device", "identity"):
            yield from differences(first[name], second[name], f"{_name(first)}: {name}")


def _name(experiment: Experiment) -> str:
    return (
        f"{experiment['descriptor']} on {experiment['dataset']}, {experiment['protocol']['name']}"
    )
