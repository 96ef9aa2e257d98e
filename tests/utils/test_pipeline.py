from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
import torch

from kornia_ditf.errors import CaptureError, ImageError
from kornia_ditf.utils.pipeline import ahead_of, run_in_groups


def test_work_goes_on_in_the_background_and_no_further_than_asked() -> None:
    taken: list[int] = []
    caller, workers = threading.get_ident(), set()

    def items() -> Iterator[int]:
        for number in range(100):
            assert threading.get_ident() == caller
            taken.append(number)
            yield number

    def work(number: int) -> int:
        workers.add(threading.get_ident())
        return -number

    results = ahead_of(items(), work, ahead=3)
    for number in range(10):
        item, future = next(results)
        assert (item, future.result()) == (number, -number)
        assert len(taken) == number + 4
    results.close()  # type: ignore[attr-defined]
    assert len(taken) == 13 and caller not in workers


def test_an_interrupted_consumer_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        for _ in ahead_of(range(100), str):
            raise KeyboardInterrupt
    assert threading.active_count() == before


@pytest.mark.parametrize("ahead", [1, 4, 50])
def test_values_of_one_kind_run_together_and_come_back_in_order(ahead: int) -> None:
    groups: list[Sequence[int]] = []

    def run(values: Sequence[int]) -> list[int]:
        groups.append(values)
        assert len({value % 3 for value in values}) == 1
        return [10 * value for value in values]

    done = list(run_in_groups(range(20), int, run, lambda value: (value % 3, 4), ahead=ahead))
    assert done == [(number, 10 * number) for number in range(20)]
    assert max(map(len, groups)) <= 4
    if ahead == 50:
        assert [len(group) for group in groups] == [4, 4, 4, 3, 3, 2]


def test_an_error_belongs_to_its_item_and_spares_the_others_of_its_group() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise ImageError("cannot read 2")
        return number

    def run(values: Sequence[int]) -> list[int]:
        if 5 in values:
            raise CaptureError("5 is not finite")
        return list(values)

    found = dict(run_in_groups(range(8), read, run, lambda value: (0, 4), ahead=8))
    assert isinstance(found[2], ImageError) and isinstance(found[5], CaptureError)
    assert [found[number] for number in (0, 1, 3, 4, 6, 7)] == [0, 1, 3, 4, 6, 7]


def test_a_group_that_memory_does_not_hold_is_halved_until_it_does() -> None:
    sizes: list[int] = []

    def run(values: Sequence[int]) -> Sequence[int]:
        sizes.append(len(values))
        if len(values) > room:
            raise torch.OutOfMemoryError
        return values

    room = 2
    found = list(run_in_groups(range(8), int, run, lambda value: (0, 8), ahead=8))
    assert found == [(number, number) for number in range(8)] and max(sizes[1:]) <= 4
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        list(run_in_groups(range(8), int, run, lambda value: (0, 8), ahead=8))
