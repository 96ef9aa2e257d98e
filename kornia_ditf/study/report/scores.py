"""Scores of an experiment, pair by pair, and their definitions.

A score is a ratio of sums over pairs (see `statistics`), so that it can be drawn anew and tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kornia_ditf.errors import StudyError
from kornia_ditf.metrics.accumulate import MMA, HomographyAccuracy, JAndF
from kornia_ditf.metrics.functional import area_contributions
from kornia_ditf.metrics.pck import PCK
from kornia_ditf.metrics.pose import PoseAccuracy
from kornia_ditf.metrics.statistics import (
    Floats,
    Interval,
    bootstrap,
    category_means,
    interval,
    paired_permutation,
    ratio,
)
from kornia_ditf.study.store.records import read_records

_LEAST_IN_STRATUM = 5
_READ = ("pair", "category", "image_a", "distances", "base", "hits", "scores")


@dataclass(frozen=True, slots=True)
class Score:
    """A column of a table.

    Args:
        name: its heading.
        kind: `per image`, `per point` ..., what curves and tests choose by.
        alpha: its threshold, where it has one.
        higher_is_better: or lower.
    """

    name: str
    kind: str
    alpha: float | None = None
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class ExperimentScores:
    """What each pair of an experiment adds to each score.

    Args:
        scores: the M scores; the first one is tested.
        definitions: what they mean, in sentences.
        numerators: of each pair and score, shape (N, M).
        denominators: likewise.
        categories: of each pair.
        images: image A of each pair.
        names: of the pairs.
        points: how many points were scored.
    """

    scores: tuple[Score, ...]
    definitions: tuple[str, ...]
    numerators: Floats
    denominators: Floats
    categories: tuple[str, ...]
    images: tuple[str, ...]
    names: tuple[str, ...]
    points: int


class Resampled:
    """The scores of experiments on the same pairs, resampled together.

    Columns are the scores of the first experiment, then those of the next.

    Args:
        scored: the experiments.
        choice: settings of the report.

    Attributes:
        values: of each column, shape (M,).
        method: how pairs were drawn, in words.
    """

    def __init__(self, scored: Sequence[ExperimentScores], choice: Mapping[str, Any]) -> None:
        first, self._choice = scored[0], choice
        self._above, below = (
            np.concatenate([getattr(each, side) for each in scored], 1)
            for side in ("numerators", "denominators")
        )
        self.values = ratio(self._above, below)
        sizes = [first.categories.count(name) for name in set(first.categories)]
        stratified = len(sizes) > 1 and min(sizes) >= _LEAST_IN_STRATUM
        self._clusters = first.images if choice["resample"] == "image" else None
        self._drawn = bootstrap(
            self._above,
            below,
            strata=first.categories if stratified else None,
            clusters=self._clusters,
            resamples=choice["resamples"],
            seed=choice["seed"],
        )
        unit = "pairs" if self._clusters is None else "images A with all their pairs"
        how = "within categories" if stratified else "from all categories together"
        if len(sizes) == 1:
            how = "all of one category"
        self.method = f"{choice['resamples']} bootstrap draws of {unit}, {how}; percentiles"

    def intervals(self) -> list[Interval]:
        """Return every column's value with its confidence interval."""
        return [
            interval(float(value), drawn, self._choice["confidence"])
            for value, drawn in zip(self.values, self._drawn.T, strict=True)
        ]

    def difference(self, a: int, b: int) -> tuple[Interval, float]:
        """Return column a minus column b with its interval, and the permutation test's p."""
        difference = interval(
            float(self.values[a] - self.values[b]),
            self._drawn[:, a] - self._drawn[:, b],
            self._choice["confidence"],
        )
        p = paired_permutation(
            self._above[:, a] - self._above[:, b],
            clusters=self._clusters,
            permutations=self._choice["permutations"],
            seed=self._choice["seed"],
        )
        return difference, p


def read_experiment(path: Path, experiment: Mapping[str, Any]) -> ExperimentScores:
    """Read one experiment's records and score its pairs.

    Args:
        path: the file of records.
        experiment: as a summary has it.

    Raises:
        StudyError: the records are not such as the protocol gives.
    """
    protocol = experiment["protocol"]
    with checking(path, experiment):
        rows = read_records(path, experiment, _READ).to_pylist()
        _check_rows(rows, protocol)
        scores, definitions, above, below = _SCORERS[protocol["task"]](rows, protocol)
    return ExperimentScores(
        scores=tuple(scores),
        definitions=tuple(definitions),
        numerators=above,
        denominators=below,
        categories=tuple(row["category"] for row in rows),
        images=tuple(row["image_a"] for row in rows),
        names=tuple(row["pair"] for row in rows),
        points=sum(len(row["distances"]) for row in rows),
    )


@contextmanager
def checking(path: Path, experiment: Mapping[str, Any]) -> Iterator[None]:
    """Say of records that cannot be used, since they come from elsewhere, whose they are.

    Raises:
        StudyError: whatever they were used for failed.
    """
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StudyError(
            f"{path}: the records of {experiment['descriptor']!r} on {experiment['dataset']!r} are "
            f"not such as the protocol {experiment['protocol']['name']!r} gives ({error})"
        ) from error


def _check_rows(rows: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]) -> None:
    """Check records, which may come from elsewhere, as far as scores depend on them."""
    if not rows:
        raise ValueError("there are none")
    alphas = () if protocol["task"] == "masks" else protocol["alphas"]
    for row in rows:
        marks, points = row["hits"], len(row["distances"])
        if len(marks) != len(alphas) or any(len(each) != points for each in marks):
            raise ValueError(f"hits of {row['pair']!r} do not fit its points")
        if any(not isinstance(row[name], str) for name in ("pair", "category", "image_a")):
            raise ValueError("a name is missing")
        if not row["base"] > 0:
            raise ValueError(f"base of {row['pair']!r} is {row['base']}")


Scored = tuple[Sequence[Score], Sequence[str], Floats, Floats]


def _keypoints(rows: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]) -> Scored:
    alphas = protocol["alphas"]
    counts = np.array([float(len(row["distances"])) for row in rows])[:, None]
    correct = np.array([[float(sum(hits)) for hits in row["hits"]] for row in rows])
    points = np.broadcast_to(counts, correct.shape)
    images = (points > 0).astype(np.float64)
    shares = np.divide(correct, points, out=np.zeros(correct.shape), where=points > 0)
    parts = [("per image", shares, images), ("per point", correct, points)]
    categories = [row["category"] for row in rows]
    if len(set(categories)) > 1:
        parts.append(("of categories", *category_means(correct, points, categories)))
    scores = [
        Score(f"PCK@{alpha:g} {kind}", kind, alpha) for kind, _, _ in parts for alpha in alphas
    ]
    definition = PCK(alphas, protocol["base"], protocol["comparison"]).definition
    note = "Here “of categories” is the mean over categories of their PCK per point."
    above, below = (np.concatenate([part[side] for part in parts], 1) for side in (1, 2))
    return scores, [definition, note] if len(parts) > 2 else [definition], above, below


def _planar(rows: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]) -> Scored:
    thresholds, limits = protocol["corner_thresholds"], protocol["alphas"]
    corners = np.array([dict(row["scores"]).get("corner_error", np.inf) for row in rows])
    accurate = (corners[:, None] <= np.array(thresholds)).astype(np.float64)
    areas = np.stack([area_contributions(corners, t).numpy() for t in thresholds], 1)
    matched = np.array(
        [[float(np.mean(h)) if len(h) else 0.0 for h in row["hits"]] for row in rows]
    )
    parts = [
        ("corner accuracy", thresholds, accurate),
        ("corner AUC", thresholds, areas),
        ("MMA", limits, matched),
    ]
    scores = [Score(f"{kind}@{t:g} px", kind, t) for kind, marks, _ in parts for t in marks]
    above = np.concatenate([part for _, _, part in parts], 1)
    return scores, [HomographyAccuracy.definition, MMA.definition], above, np.ones(above.shape)


def _masks(rows: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]) -> Scored:
    found = [dict(row["scores"]) for row in rows]
    j, f, objects = (np.array([each[name] for each in found]) for name in ("J", "F", "objects"))
    scores = [Score(name, name) for name in ("J&F", "J", "F")]
    above = np.stack([(j + f) / 2, j, f], 1)
    return scores, [JAndF.definition], above, np.repeat(objects[:, None], 3, 1)


def _poses(rows: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]) -> Scored:
    pose, limits = protocol["pose"], protocol["alphas"]
    found = [dict(row["scores"]) for row in rows]
    best: Floats | None = None
    for threshold in pose["thresholds"]:
        errors = np.array([each[f"pose_error@{threshold:g}"] for each in found])
        areas = np.stack([area_contributions(errors, t).numpy() for t in pose["angles"]], 1)
        if best is None or areas.mean() > best.mean():
            best = areas
    assert best is not None
    precise = np.array(
        [[float(np.mean(hits)) if len(hits) else 0.0 for hits in row["hits"]] for row in rows]
    )
    scores = [Score(f"pose AUC@{t:g}°", "pose AUC", t) for t in pose["angles"]]
    scores += [Score(f"precision@{t:g}", "precision", t) for t in limits]
    above = np.concatenate([best, precise], 1)
    definitions = [PoseAccuracy.definition]
    if len(pose["thresholds"]) > 1:
        definitions.append(
            f"Of the inlier thresholds {', '.join(f'{t:g}' for t in pose['thresholds'])} px, "
            "scores are each contestant's with the best mean AUC, as in glue-factory."
        )
    return scores, definitions, above, np.ones(above.shape)


_SCORERS = {"keypoints": _keypoints, "homography": _planar, "pose": _poses, "masks": _masks}
