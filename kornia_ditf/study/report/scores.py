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
import torch
from torch import Tensor

from kornia_ditf.errors import StudyError
from kornia_ditf.metrics.accumulate import MMA, HomographyAccuracy, JAndF
from kornia_ditf.metrics.functional import accuracy_contributions, area_contributions, shares
from kornia_ditf.metrics.masks import j_and_f
from kornia_ditf.metrics.pck import PCK, pck_sums
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
    """A column of a table; curves and tests choose by its `kind`, such as `per image`."""

    name: str
    kind: str
    alpha: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ExperimentScores:
    """What each of N pairs of an experiment adds to each of M scores; the first score is tested.

    Args:
        definitions: what the scores mean, in sentences.
        numerators: shape (N, M).
        denominators: shape (N, M).
        images: image A of each pair.
        points: how many were scored.
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
        StudyError: the records do not fit the protocol.
    """
    protocol = experiment["protocol"]
    with checking(path, experiment):
        rows = read_records(path, experiment, _READ).to_pylist()
        _check_rows(rows, protocol)
        columns, definitions = _SCORERS[protocol["task"]](rows, protocol)
    return ExperimentScores(
        scores=tuple(score for score, _, _ in columns),
        definitions=tuple(definitions),
        numerators=np.stack([above for _, above, _ in columns], 1),
        denominators=np.stack([below for _, _, below in columns], 1),
        categories=tuple(row["category"] for row in rows),
        images=tuple(row["image_a"] for row in rows),
        names=tuple(row["pair"] for row in rows),
        points=sum(len(row["distances"]) for row in rows),
    )


@contextmanager
def checking(path: Path, experiment: Mapping[str, Any]) -> Iterator[None]:
    """Add the file and configuration to errors of records that cannot be used.

    Raises:
        StudyError: whatever they were used for failed.
    """
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StudyError(
            f"{path}: the records of {experiment['descriptor']!r} on {experiment['dataset']!r} do "
            f"not fit the protocol {experiment['protocol']['name']!r} ({error})"
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


Column = tuple[Score, Floats, Floats]
"""A score, and what each of N pairs adds to its numerator and denominator, shape (N,)."""


def _keypoints(
    rows: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]
) -> tuple[list[Column], list[str]]:
    alphas = protocol["alphas"]
    sums = np.stack([pck_sums(_hits(row)) for row in rows])
    correct, share = sums[:, 0, 1:], sums[:, 1, 1:]
    points, pairs = (np.broadcast_to(sums[:, at, :1], correct.shape) for at in (0, 1))
    parts = [("per image", share, pairs), ("per point", correct, points)]
    definitions = [PCK(alphas, protocol["base"], protocol["comparison"]).definition]
    categories = [row["category"] for row in rows]
    if len(set(categories)) > 1:
        parts.append(("of categories", *category_means(correct, points, categories)))
        note = "Here “of categories” is the mean over categories of their PCK per point."
        definitions.append(note)
    columns = [
        (Score(f"PCK@{alpha:g} {kind}", kind, alpha), above[:, at], below[:, at])
        for kind, above, below in parts
        for at, alpha in enumerate(alphas)
    ]
    return columns, definitions


def _planar(
    rows: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]
) -> tuple[list[Column], list[str]]:
    thresholds, ones = protocol["corner_thresholds"], np.ones(len(rows))
    corners = np.array([dict(row["scores"]).get("corner_error", np.inf) for row in rows])
    parts = [("corner accuracy", t, accuracy_contributions(corners, t).numpy()) for t in thresholds]
    parts += [("corner AUC", t, area_contributions(corners, t).numpy()) for t in thresholds]
    matched = zip(protocol["alphas"], _shares(rows).T, strict=True)
    parts += [("MMA", t, share) for t, share in matched]
    columns = [(Score(f"{kind}@{t:g} px", kind, t), above, ones) for kind, t, above in parts]
    return columns, [HomographyAccuracy.definition, MMA.definition]


def _masks(
    rows: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]
) -> tuple[list[Column], list[str]]:
    found = [dict(row["scores"]) for row in rows]
    j, f, objects = (np.array([each[name] for each in found]) for name in ("J", "F", "objects"))
    parts = {"J&F": j_and_f(j, f), "J": j, "F": f}
    columns = [(Score(name, name), above, objects) for name, above in parts.items()]
    return columns, [JAndF.definition]


def _poses(
    rows: Sequence[Mapping[str, Any]], protocol: Mapping[str, Any]
) -> tuple[list[Column], list[str]]:
    pose, ones = protocol["pose"], np.ones(len(rows))
    found = [dict(row["scores"]) for row in rows]
    every = []
    for threshold in pose["thresholds"]:
        errors = np.array([each[f"pose_error@{threshold:g}"] for each in found])
        every.append(np.stack([area_contributions(errors, t).numpy() for t in pose["angles"]]))
    best = max(every, key=lambda areas: float(areas.mean()))
    columns = [
        (Score(f"pose AUC@{t:g}°", "pose AUC", t), area, ones)
        for t, area in zip(pose["angles"], best, strict=True)
    ]
    columns += [
        (Score(f"precision@{t:g}", "precision", t), share, ones)
        for t, share in zip(protocol["alphas"], _shares(rows).T, strict=True)
    ]
    definitions = [PoseAccuracy.definition]
    if len(pose["thresholds"]) > 1:
        definitions.append(
            f"Of the inlier thresholds {', '.join(f'{t:g}' for t in pose['thresholds'])} px, "
            "scores are each contestant's with the best mean AUC, as in glue-factory."
        )
    return columns, definitions


def _shares(rows: Sequence[Mapping[str, Any]]) -> Floats:
    return np.stack([shares(_hits(row)).numpy() for row in rows])


def _hits(row: Mapping[str, Any]) -> Tensor:
    return torch.tensor(row["hits"], dtype=torch.bool)


_SCORERS = {"keypoints": _keypoints, "homography": _planar, "pose": _poses, "masks": _masks}
