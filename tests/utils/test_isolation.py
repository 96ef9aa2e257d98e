from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import pytest
import torch
from torch import Tensor, nn

from kornia_ditf.utils.isolation import building, default_dtype, eager, isolated, lock_of, quiet


class Settings(nn.Module):
    """What a model meets when it runs."""

    def forward(self, x: Tensor) -> tuple[torch.dtype, torch.dtype, str]:
        return torch.zeros(1).dtype, (x @ x).dtype, torch.zeros(1).device.type


def test_a_model_has_one_lock_and_can_be_copied_while_it_is_held() -> None:
    model = nn.Linear(2, 2)
    lock = lock_of(model)
    assert lock_of(model) is lock and lock_of(nn.Linear(2, 2)) is not lock
    with isolated(model), isolated(model):
        other = copy.deepcopy(model)
        assert lock_of(other) is not lock
        assert other.state_dict().keys() == model.state_dict().keys()


def test_a_model_does_not_meet_the_callers_dtype_device_and_autocast() -> None:
    model, x = Settings(), torch.eye(2)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with isolated(model):
                assert model(x) == (torch.float32, torch.float32, "cpu")
            assert model(x) == (torch.float64, torch.bfloat16, "meta")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_a_shared_setting_is_restored_by_the_last_who_holds_it() -> None:
    entered, leave = Event(), Event()

    def hold() -> None:
        with default_dtype(torch.float64):
            entered.set()
            leave.wait()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(hold)
        entered.wait()
        with default_dtype(torch.float64):
            leave.set()
            other.result()
            assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_dtype() == torch.float32


def test_who_wants_another_value_of_a_shared_setting_waits() -> None:
    order: list[str] = []

    def hold(name: str, dtype: torch.dtype) -> None:
        with default_dtype(dtype):
            order.append(f"{name} {torch.get_default_dtype()}")

    with ThreadPoolExecutor(1) as pool:
        with default_dtype(torch.bfloat16):
            other = pool.submit(hold, "other", torch.float64)
            order.append(f"first {torch.get_default_dtype()}")
        other.result()
    assert order == ["first torch.bfloat16", "other torch.float64"]
    assert torch.get_default_dtype() == torch.float32


def test_a_thread_nests_values_of_a_shared_setting() -> None:
    before = list(warnings.filters)
    with default_dtype(torch.float32), quiet(FutureWarning):
        with default_dtype(torch.bfloat16), quiet(Warning), default_dtype(torch.bfloat16):
            assert torch.get_default_dtype() == torch.bfloat16
            warnings.warn("of any kind", UserWarning, stacklevel=1)
        assert torch.get_default_dtype() == torch.float32
        warnings.warn("of the outer kind", FutureWarning, stacklevel=1)
        with pytest.raises(KeyError), default_dtype(torch.float64):
            raise KeyError
        assert torch.get_default_dtype() == torch.float32
    assert list(warnings.filters) == before


@pytest.mark.parametrize("others", [torch.bfloat16, torch.float16])
def test_threads_that_hold_one_value_and_want_others_do_not_wait_for_ever(
    others: torch.dtype,
) -> None:
    both = Barrier(2, timeout=60)
    found: dict[int, list[torch.dtype]] = {}

    def nest(name: int, inner: torch.dtype) -> None:
        with default_dtype(torch.float64):
            both.wait()  # both hold the outer value before either wants another
            with default_dtype(inner):
                seen = torch.get_default_dtype()
            found[name] = [seen, torch.get_default_dtype()]

    inner = {0: torch.bfloat16, 1: others}
    threads = [Thread(target=nest, args=each, daemon=True) for each in inner.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {name: [dtype, torch.float64] for name, dtype in inner.items()}
    assert torch.get_default_dtype() == torch.float32


def test_an_eager_function_breaks_the_graph_and_runs_as_it_is() -> None:
    @eager
    def count(x: Tensor) -> Tensor:
        assert not torch.compiler.is_dynamo_compiling()
        return x + 1

    compiled = torch.compile(lambda x: count(2 * x), backend="eager")
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 3.0))


def test_models_are_built_one_at_a_time_in_their_own_dtype() -> None:
    inside, met = [0], []

    def build(dtype: torch.dtype) -> None:
        with building(dtype), building(dtype):
            inside[0] += 1
            Event().wait(0.01)
            met.append((inside[0], torch.get_default_dtype() == dtype))
            inside[0] -= 1

    def run() -> None:
        with isolated(nn.Linear(2, 2)):
            Event().wait(0.01)
            met.append((1, torch.get_default_dtype() == torch.float32))

    with ThreadPoolExecutor(6) as pool:
        dtypes = [torch.bfloat16, torch.float32, torch.float16, torch.bfloat16]
        calls = [pool.submit(build, dtype) for dtype in dtypes]
        calls += [pool.submit(run) for _ in range(6)]
        for call in calls:
            call.result()
    assert met == [(1, True)] * 10


def test_warning_filters_are_as_before_however_threads_leave_a_silence() -> None:
    before = list(warnings.filters)
    entered, leave = Event(), Event()

    def hold() -> None:
        with quiet(Warning):
            entered.set()
            leave.wait()

    with ThreadPoolExecutor(1) as pool:
        with quiet(Warning):
            other = pool.submit(hold)
            entered.wait()
        warnings.warn("silent while another thread is inside", UserWarning, stacklevel=1)
        leave.set()
        other.result()
    assert list(warnings.filters) == before
