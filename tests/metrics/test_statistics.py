"""Intervals, tests and corrections against computations of another kind."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.statistics import (
    bootstrap,
    category_means,
    holm,
    interval,
    paired_permutation,
    ratio,
)

shares = st.lists(st.integers(-20, 20), min_size=1, max_size=9)


@given(shares)
def test_few_pairs_are_tested_by_every_pattern_of_signs(differences: list[int]) -> None:
    bound = abs(sum(differences))
    sums = [
        abs(sum(sign * each for sign, each in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = Fraction(sum(each >= bound for each in sums), len(sums))
    found = paired_permutation(np.array(differences, dtype=float))
    assert found == pytest.approx(float(expected), abs=1e-12)


def test_many_pairs_are_tested_by_random_patterns_near_the_normal_approximation() -> None:
    from scipy.stats import norm

    differences = np.random.default_rng(3).normal(0.1, 1, 400)
    score = differences.sum() / np.sqrt((differences**2).sum())
    expected = 2 * norm.sf(abs(score))
    found = paired_permutation(differences, permutations=20000)
    assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("count", [7, 12])
def test_patterns_whose_sums_differ_by_rounding_alone_count_as_equal(count: int) -> None:
    differences = np.random.default_rng(count).choice([-0.1, -0.2, 0.1, 0.3], count)
    tenths = (10 * differences).round()
    assert paired_permutation(differences) == paired_permutation(tenths)


def test_under_the_null_small_p_values_are_as_rare_as_they_say() -> None:
    generator = np.random.default_rng(0)
    found = [
        paired_permutation(generator.normal(size=10), permutations=500, seed=seed)
        for seed in range(300)
    ]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.09


def test_a_p_value_is_never_zero_and_one_where_nothing_differs() -> None:
    assert paired_permutation(np.ones(50), permutations=99) == pytest.approx(0.01)
    assert paired_permutation(np.zeros(5)) == 1.0


def test_pairs_of_one_cluster_are_swapped_together() -> None:
    differences = np.array([1.0, 1.0, 1.0, 1.0])
    assert paired_permutation(differences, clusters=["a", "a", "b", "b"]) == 0.5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_agrees_with_its_definition(p_values: list[float]) -> None:
    count, order = len(p_values), np.argsort(p_values, kind="stable")
    expected = np.empty(count)
    for rank, place in enumerate(order):
        expected[place] = min(1.0, max((count - r) * p_values[order[r]] for r in range(rank + 1)))
    assert holm(p_values) == pytest.approx(expected.tolist())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_a_ratio_is_that_of_the_sums(rows: list[tuple[int, int]]) -> None:
    above = np.array([[min(row)] for row in rows], dtype=float)
    below = np.array([[max(row)] for row in rows], dtype=float)
    total = sum(max(row) for row in rows)
    expected = sum(min(row) for row in rows) / total if total else np.nan
    assert ratio(above, below) == pytest.approx([expected], nan_ok=True)


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, (400, 1))
    drawn = bootstrap(values, np.ones((400, 1)), resamples=4000)
    found = interval(float(values.mean()), drawn[:, 0], 0.95)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_scores_are_computed_on_the_same_draws() -> None:
    values = np.random.default_rng(2).random((30, 1))
    both = np.concatenate([values, values + 1], 1)
    drawn = bootstrap(both, np.ones(both.shape), resamples=100)
    assert np.allclose(drawn[:, 1] - drawn[:, 0], 1)


def test_strata_keep_their_sizes() -> None:
    above = np.array([[0.0]] * 5 + [[1.0]] * 15)
    drawn = bootstrap(above, np.ones(above.shape), strata=["a"] * 5 + ["b"] * 15, resamples=50)
    assert (drawn == 0.75).all()
    assert bootstrap(above, np.ones(above.shape), resamples=50).std() > 0.05


def test_clusters_are_drawn_whole() -> None:
    above = np.array([[0.0], [0.0], [1.0], [1.0]])
    drawn = bootstrap(above, np.ones((4, 1)), clusters=["a", "a", "b", "b"], resamples=300)
    assert set(np.unique(drawn)) == {0.0, 0.5, 1.0}


def test_the_mean_of_categories_gives_each_the_same_weight() -> None:
    above, below = np.array([[1.0], [0.0], [3.0]]), np.array([[1.0], [1.0], [4.0]])
    found = ratio(*category_means(above, below, ["a", "a", "b"]))
    assert found == pytest.approx([(0.5 + 0.75) / 2])


def test_the_same_seed_draws_the_same() -> None:
    values = np.random.default_rng(0).random((20, 2))
    one, other = (bootstrap(values, np.ones((20, 2)), resamples=100, seed=4) for _ in "ab")
    assert (one == other).all()


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"got \(3, 1\) and \(2, 1\)"):
        bootstrap(np.ones((3, 1)), np.ones((2, 1)))
