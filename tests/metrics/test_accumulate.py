from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics import accumulate
from kornia_ditf.metrics.accumulate import MMA, HomographyAccuracy, JAndF


def test_mma_is_the_mean_over_pairs_of_each_pairs_share() -> None:
    mma = MMA([1, 3])
    mma.update(torch.tensor([0.5, 1.0, 2.0, 9.0]))
    mma.update(torch.tensor([]))  # a pair without matches counts as 0
    assert mma.compute() == {1: 0.25, 3: 0.375}
    assert math.isnan(MMA([1]).compute()[1])


def test_homographies_are_counted_at_each_threshold() -> None:
    scores = HomographyAccuracy()
    for error in (0.5, 1.0, 4.0, math.inf):
        scores.update(error)
    found = scores.compute()
    assert found.pairs == 4
    assert found.accuracy == {1: 0.5, 3: 0.5, 5: 0.75}
    # From 0 to 1 two straight lines, then flat at 1/2, up to 3/4 at 4, flat to 5.
    assert found.auc[3] == pytest.approx((0.5 * 0.25 / 2 + 0.5 * (0.25 + 0.5) / 2 + 2 * 0.5) / 3)
    assert math.isnan(HomographyAccuracy().compute().auc[1])


def test_j_and_f_are_averaged_over_objects_and_not_over_sequences() -> None:
    scores = JAndF()
    scores.update("bear", np.full((1, 4), 0.4), np.full((1, 4), 0.6))
    scores.update("dogs", np.array([[1.0, 1, 0, 0], [1, 1, 1, 1]]), np.ones((2, 4)))
    found = scores.compute()
    assert found.objects == {
        "bear_1": pytest.approx((0.4, 0.6)),
        "dogs_1": (0.5, 1.0),
        "dogs_2": (1.0, 1.0),
    }
    assert found.j_mean == pytest.approx((0.4 + 0.5 + 1) / 3)
    assert found.j_recall == pytest.approx((0 + 0.5 + 1) / 3)
    assert found.j_decay == pytest.approx((0 + 1 + 0) / 3)
    assert found.j_and_f == pytest.approx((found.j_mean + found.f_mean) / 2)
    with pytest.raises(InvalidArgumentError, match="counted already"):
        scores.update("bear", np.ones((1, 4)), np.ones((1, 4)))


@pytest.mark.parametrize("kind", [MMA, HomographyAccuracy, JAndF])
def test_parts_merge_into_the_whole(kind: type) -> None:
    parts, whole = [kind(), kind()], kind()
    generator = np.random.default_rng(0)
    for index in range(6):
        if kind is HomographyAccuracy:
            arguments: tuple[object, ...] = (float(generator.random() * 6),)
        elif kind is JAndF:
            arguments = (f"s{index}", generator.random((2, 5)), generator.random((2, 5)))
        else:
            arguments = (torch.from_numpy(generator.random(index) * 5),)
        parts[index % 2].update(*arguments)
        whole.update(*arguments)
    parts[0].merge(parts[1])
    found, expected = parts[0].compute(), whole.compute()
    if isinstance(expected, dict):
        assert found == pytest.approx(expected)
    elif kind is JAndF:
        assert found.j_and_f == pytest.approx(expected.j_and_f)
        assert set(found.objects) == set(expected.objects)
    else:
        assert found.auc == pytest.approx(expected.auc)


def test_only_the_same_thresholds_merge() -> None:
    for kind in (MMA, HomographyAccuracy):
        with pytest.raises(InvalidArgumentError, match="same thresholds"):
            kind([1]).merge(kind([2]))


def test_every_accumulator_defines_what_it_counts() -> None:
    kinds = [
        value
        for value in vars(accumulate).values()
        if isinstance(value, type) and hasattr(value, "update")
    ]
    assert len(kinds) == 3
    assert all(len(kind.definition) > 80 for kind in kinds)


class OnAnotherDevice(Tensor):
    """A tensor of a device that has no float64."""

    def cpu(self, *_: object) -> Tensor:  # type: ignore[override]
        return self.as_subclass(Tensor)

    def double(self) -> Tensor:  # type: ignore[override]
        raise TypeError("this device has no float64")


def test_distances_on_a_device_without_float64_count() -> None:
    mma = MMA((1, 3))
    mma.update(torch.tensor([0.5, 2.0]).as_subclass(OnAnotherDevice))
    assert list(mma.compute().values()) == [0.5, 1.0]
