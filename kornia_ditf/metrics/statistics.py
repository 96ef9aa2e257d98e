"""Bootstrap confidence intervals, paired permutation tests and Holm's correction.

A score is a ratio of sums over pairs: correct points over points (PCK per point), or the pairs'
own scores over their number (PCK per image). Pairs are drawn, never points, since the points of one
pair err together; strata (categories) keep their sizes in every draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kornia_ditf.errors import InvalidArgumentError

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

_DRAWS_AT_ONCE = 64
_PATTERNS_AT_ONCE = 512  # fewer take twice the time, at 12,000 pairs
_EXACT_UP_TO = 12  # 2^12 sign patterns are fewer than a usual number of random ones


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the two ends of its confidence interval."""

    value: float
    low: float
    high: float


def ratio(numerators: Floats, denominators: Floats) -> Floats:
    """Divide the sums over pairs, shape (N, M) each; NaN where the denominators sum to 0."""
    return _divide(numerators.sum(0), denominators.sum(0))


def bootstrap(
    numerators: Floats,
    denominators: Floats,
    *,
    strata: Sequence[object] | None = None,
    clusters: Sequence[object] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Floats:
    """Compute every score on the same bootstrap resamples of pairs.

    Args:
        numerators: of each pair and score, shape (N, M).
        denominators: of each pair and score, shape (N, M).
        strata: what each pair belongs to; each stratum is drawn from by itself. None is one.
        clusters: pairs of one cluster (an image) are drawn together; within a stratum.
        resamples: number of draws R.
        seed: of the draws.

    Returns:
        the scores, shape (R, M).

    Raises:
        InvalidArgumentError: shapes differ, or there are no pairs.
    """
    _check(numerators, denominators)
    groups = list(strata) if strata is not None else [0] * len(numerators)
    parts = list(clusters) if clusters is not None else list(range(len(numerators)))
    units: dict[tuple[str, str], int] = {}
    index = np.array(
        [units.setdefault((str(g), str(p)), len(units)) for g, p in zip(groups, parts, strict=True)]
    )
    above, below = (_sums(values, index, len(units)) for values in (numerators, denominators))
    members: dict[str, list[int]] = {}
    for (group, _), unit in units.items():
        members.setdefault(group, []).append(unit)
    generator = np.random.default_rng(seed)
    results = np.empty((resamples, numerators.shape[1]))
    for start in range(0, resamples, _DRAWS_AT_ONCE):
        draws = min(_DRAWS_AT_ONCE, resamples - start)
        counts = np.zeros((draws, len(units)))
        for own in members.values():
            counts[:, own] = generator.multinomial(len(own), np.full(len(own), 1 / len(own)), draws)
        results[start : start + draws] = _divide(counts @ above, counts @ below)
    return results


def category_means(
    numerators: Floats, denominators: Floats, categories: Sequence[object]
) -> tuple[Floats, Floats]:
    """Weight pairs so that the ratio of sums is the mean of the categories' ratios.

    A category's weight is kept as it is in the sample at hand, also where pairs are drawn anew.

    Returns:
        numerators and denominators, shape (N, M) each, whose `ratio` is that mean.
    """
    _check(numerators, denominators)
    names, index = np.unique(np.array([str(each) for each in categories]), return_inverse=True)
    totals = _sums(denominators, index, len(names))[index]
    weights = np.divide(1.0, totals, out=np.zeros(totals.shape), where=totals > 0)
    return numerators * weights, denominators * weights


def interval(value: float, samples: Floats, confidence: float) -> Interval:
    """Return the percentile interval of bootstrap samples, shape (R,).

    Example:
        >>> interval(0.5, np.linspace(0, 1, 1001), 0.95)
        Interval(value=0.5, low=0.025, high=0.975)
    """
    kept = samples[np.isfinite(samples)]
    if not len(kept):
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Interval(value, round(float(low), 12), round(float(high), 12))


def paired_permutation(
    differences: Floats,
    *,
    clusters: Sequence[object] | None = None,
    permutations: int = 10000,
    seed: int = 0,
) -> float:
    """Paired permutation test: swap the results of two descriptors pair by pair at random.

    If they are equally good, a pair's difference is as likely to have the other sign. With up to
    12 pairs (or clusters) that differ every pattern of signs is tried; otherwise
    `permutations` random ones, and the p-value is never 0.

    Args:
        differences: of the pairs' numerators, shape (N,).
        clusters: pairs of one cluster are swapped together.
        permutations: number of random patterns.
        seed: of the patterns.

    Returns:
        the two-sided p-value.

    Example:
        >>> paired_permutation(np.array([1.0, 1.0, 1.0, 1.0]))
        0.125
    """
    from scipy.stats import permutation_test

    if clusters is not None:
        _, index = np.unique(np.array([str(each) for each in clusters]), return_inverse=True)
        differences = _sums(differences[:, None], index, int(index.max()) + 1)[:, 0]
    moved = differences[differences != 0]
    if len(moved) < 2:  # either sign is as extreme
        return 1.0
    moved = moved / np.abs(moved).sum()
    found = permutation_test(
        (moved,),
        # Rounded, since sums in another order differ in their last digits.
        lambda values, axis: np.abs(values.sum(axis)).round(9),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(moved) if len(moved) <= _EXACT_UP_TO else permutations,
        batch=_PATTERNS_AT_ONCE,
        alternative="greater",
        random_state=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method, in the given order.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _divide(above: Floats, below: Floats) -> Floats:
    result: Floats = np.full(above.shape, np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def _sums(values: Floats, index: Integers, count: int) -> Floats:
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def _check(numerators: Floats, denominators: Floats) -> None:
    if numerators.ndim != 2 or numerators.shape != denominators.shape or not len(numerators):
        raise InvalidArgumentError(
            "numerators and denominators must have the same shape (N, M) with N above 0, got "
            f"{numerators.shape} and {denominators.shape}"
        )
