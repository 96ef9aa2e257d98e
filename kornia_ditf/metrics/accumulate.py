"""Accumulators of metrics over pairs and videos, which can be merged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.functional import (
    accuracy_contributions,
    area_under_curve,
    shares,
    within,
)
from kornia_ditf.metrics.masks import j_and_f, statistics


class MMA:
    """Mean matching accuracy: the share of matches that a known homography explains.

    Args:
        thresholds: in pixels of image B.
    """

    definition = (
        "MMA@t: for each pair the share of its matches whose point in A, taken through the true "
        "homography, lies at most t pixels from the match's point in B (0 for a pair without "
        "matches); the mean over pairs."
    )

    def __init__(self, thresholds: Sequence[float] = tuple(range(1, 11))) -> None:
        self.thresholds = tuple(thresholds)
        self._sums, self._pairs = torch.zeros(len(self.thresholds), dtype=torch.float64), 0

    def update(self, distances: Tensor) -> None:
        """Count one pair by its matches' distances, shape (K,), in pixels."""
        self._pairs += 1
        self._sums += shares(within(distances, 1.0, self.thresholds))

    def merge(self, other: MMA) -> None:
        """Add what another one counted."""
        if self.thresholds != other.thresholds:
            raise InvalidArgumentError("only accuracies at the same thresholds can be merged")
        self._sums, self._pairs = self._sums + other._sums, self._pairs + other._pairs

    def compute(self) -> dict[float, float]:
        """Return the accuracy at each threshold; NaN where nothing was counted."""
        means = (self._sums / self._pairs).tolist()  # 0 / 0 is NaN
        return dict(zip(self.thresholds, means, strict=True))


@dataclass(frozen=True, slots=True)
class HomographyScores:
    """Accuracy and AUC of homographies at each threshold."""

    pairs: int
    accuracy: Mapping[float, float]
    auc: Mapping[float, float]


class HomographyAccuracy:
    """Accuracy and AUC of corner errors.

    Args:
        thresholds: in pixels of image B.
    """

    definition = (
        "Corner error: the mean distance, in pixels of B, between the corners of image A under the "
        "homography that was found and under the true one; infinite where none was found. "
        "Accuracy@t: the share of pairs with an error <= t. AUC@t: the area under the curve of "
        "that share over errors from 0 to t, divided by t; straight lines join its steps, as in "
        "SuperGlue's evaluation."
    )

    def __init__(self, thresholds: Sequence[float] = (1, 3, 5)) -> None:
        self.thresholds = tuple(thresholds)
        self._errors: list[float] = []

    def update(self, error: float) -> None:
        """Count one pair by its corner error."""
        self._errors.append(error)

    def merge(self, other: HomographyAccuracy) -> None:
        """Add what another one counted."""
        if self.thresholds != other.thresholds:
            raise InvalidArgumentError("only accuracies at the same thresholds can be merged")
        self._errors += other._errors

    def compute(self) -> HomographyScores:
        """Return accuracy and AUC at each threshold; NaN where nothing was counted."""
        errors = self._errors
        if not errors:
            nothing = dict.fromkeys(self.thresholds, math.nan)
            return HomographyScores(0, nothing, nothing)
        accuracy = {t: float(accuracy_contributions(errors, t).mean()) for t in self.thresholds}
        areas = {t: area_under_curve(errors, t) for t in self.thresholds}
        return HomographyScores(len(errors), accuracy, areas)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskScores:
    """The scores of DAVIS 2017: means over all objects of all sequences.

    Args:
        objects: J and F of each object, by `<sequence>_<number from 1>`.
    """

    j_and_f: float
    j_mean: float
    j_recall: float
    j_decay: float
    f_mean: float
    f_recall: float
    f_decay: float
    objects: Mapping[str, tuple[float, float]]


_MEANS = ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")


class JAndF:
    """Region similarity J and boundary accuracy F of sequences, as DAVIS 2017 reports them."""

    definition = (
        "J: intersection over union of an object's mask with the true one. F: harmonic mean of "
        "precision and recall of its boundary, within 0.008 of the diagonal. For each object the "
        "mean over frames but the first and the last (recall: the share of frames above 0.5; "
        "decay: the first quarter's mean less the last's); then the mean over all objects of all "
        "sequences. J&F: the mean of J's and F's means. As davis2017-evaluation, semi-supervised."
    )

    def __init__(self) -> None:
        self._rows: dict[str, tuple[float, ...]] = {}

    def update(self, sequence: str, j: npt.NDArray[np.float64], f: npt.NDArray[np.float64]) -> None:
        """Count one sequence.

        Args:
            sequence: its name.
            j: of each object in each frame that is scored, shape (objects, frames).
            f: likewise.

        Raises:
            InvalidArgumentError: the shapes differ, or the sequence was counted already.
        """
        if j.shape != f.shape or j.ndim != 2:
            raise InvalidArgumentError(f"j and f differ in shape: {j.shape} and {f.shape}")
        for number, (regions, boundaries) in enumerate(zip(j, f, strict=True), 1):
            self._add(f"{sequence}_{number}", (*statistics(regions), *statistics(boundaries)))

    def _add(self, name: str, row: tuple[float, ...]) -> None:
        if name in self._rows:
            raise InvalidArgumentError(f"object {name} was counted already")
        self._rows[name] = row

    def merge(self, other: JAndF) -> None:
        """Add what another one counted.

        Raises:
            InvalidArgumentError: an object was counted by both.
        """
        for name, row in other._rows.items():
            self._add(name, row)

    def compute(self) -> MaskScores:
        """Return the scores of all that was counted; NaN where nothing was."""
        rows = np.array(list(self._rows.values())).reshape(-1, 6)
        means = rows.mean(0).tolist() if len(rows) else [math.nan] * 6
        return MaskScores(
            j_and_f=j_and_f(means[0], means[3]),
            **dict(zip(_MEANS, means, strict=True)),
            objects={name: (row[0], row[3]) for name, row in self._rows.items()},
        )
