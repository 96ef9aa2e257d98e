"""J and F, against davis2017-evaluation written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import published
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.masks import boundary_accuracy, region_similarity, statistics


def blob(size: tuple[int, int], seed: int) -> np.ndarray:
    """A few rectangles, some at the border."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for _ in range(int(generator.integers(0, 4))):
        top, left = generator.integers(-4, size[0]), generator.integers(-4, size[1])
        height, width = generator.integers(1, 25, 2)
        mask[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = 1
    return mask


sizes = st.sampled_from([(20, 30), (47, 31), (33, 120), (90, 130)])
seeds = st.integers(0, 10_000)


@settings(max_examples=40)
@given(size=sizes, seed=seeds, with_void=st.booleans())
def test_j_and_f_are_those_of_davis(size: tuple[int, int], seed: int, with_void: bool) -> None:
    true, found = blob(size, seed), blob(size, seed + 1)
    if seed % 3 == 0:
        found = np.roll(true, (seed % 3 + 1, 1), (0, 1))
    void = blob(size, seed + 2) if with_void else np.zeros(size, np.uint8)
    given_void = void if with_void else None
    j, f = region_similarity(true, found, given_void), boundary_accuracy(true, found, given_void)
    assert j == pytest.approx(published.jaccard(true, found, void), abs=1e-12)
    assert f == pytest.approx(published.boundary_f(true, found, void), abs=1e-12)


def test_a_mask_equals_itself_and_an_empty_one_equals_an_empty_one() -> None:
    mask, empty = blob((40, 50), 3), np.zeros((40, 50))
    for score in (region_similarity, boundary_accuracy):
        assert score(mask, mask) == 1 == score(empty, empty)
        assert score(mask, empty) == 0 == score(empty, mask)


def test_a_mask_of_the_whole_image_has_no_boundary() -> None:
    whole = np.ones((30, 40))
    assert boundary_accuracy(whole, np.zeros((30, 40))) == 1
    assert region_similarity(whole, np.zeros((30, 40))) == 0


def test_a_boundary_may_be_off_by_the_tolerance_and_no_further() -> None:
    true = np.zeros((100, 100))
    true[30:60, 30:60] = 1  # the tolerance is ceil(0.008 * 141.4) = 2 pixels
    shifted = [boundary_accuracy(true, np.roll(true, shift, 1)) for shift in (2, 3)]
    assert shifted[0] == 1 and shifted[1] < 1


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=120))
def test_the_statistics_are_those_of_davis(values: list[float]) -> None:
    array = np.array(values)
    assert statistics(array) == pytest.approx(published.db_statistics(array))


def test_decay_is_right_beyond_255_frames() -> None:
    # The published script keeps the numbers of frames in 8 bits, and would wrap round here.
    values = np.linspace(1, 0, 400)
    assert statistics(values).decay == pytest.approx(
        values[:101].mean() - values[299:].mean(), 1e-2
    )


def test_shapes_that_differ_and_no_frames_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="the same shape"):
        region_similarity(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(InvalidArgumentError, match="the same shape"):
        boundary_accuracy(np.zeros((3, 4, 1)), np.zeros((3, 4, 1)))
    with pytest.raises(InvalidArgumentError, match="at least one frame"):
        statistics(np.array([]))
