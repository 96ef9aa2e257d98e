"""Inputs of blocks, captured under hooks that leave nothing behind."""

from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from toy_transformer import (
    GRID,
    STREAMS,
    ToyBlock,
    ToyTransformer,
    hook_count,
    stream,
    stream_before,
)

from kornia_ditf.errors import CaptureError, InvalidArgumentError
from kornia_ditf.tap import capture_blocks, count_blocks
from kornia_ditf.treatments import modulate


def test_every_block_of_both_lists_gives_its_own_input(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    taps = capture_blocks(toy, STREAMS, range(5), inputs, grid=GRID)
    assert count_blocks(toy, STREAMS) == 5
    for block, tap in taps.items():
        assert torch.equal(tap.x, stream_before(toy, inputs, block))


def test_several_blocks_cost_one_forward_and_equal_single_captures(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    together = capture_blocks(toy, STREAMS, [3, 0], inputs, grid=GRID)
    assert toy.calls == 1
    assert list(together) == [0, 3]
    for block, tap in together.items():
        alone = capture_blocks(toy, STREAMS, [block], inputs, grid=GRID)[block]
        assert torch.equal(tap.x, alone.x)
        assert tap.shift is not None and alone.shift is not None
        assert torch.equal(tap.shift, alone.shift)


def test_nothing_runs_behind_the_last_blocks_modulation(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("this must not run")

    toy.second[1].after.register_forward_hook(fail)
    toy.second[2].register_forward_pre_hook(fail)
    capture_blocks(toy, STREAMS, [3], inputs, grid=GRID)


def test_the_models_own_forward_is_unchanged_afterwards(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    before = toy(**inputs)
    capture_blocks(toy, STREAMS, [4], inputs, grid=GRID)
    assert hook_count(toy) == 0
    assert torch.equal(toy(**inputs), before)


class CopiedTransformer(ToyTransformer):
    """While it runs for the first time, another thread copies it."""

    copies: ClassVar[list[ToyTransformer]] = []

    def forward(self, hidden: Tensor, text: Tensor, emb: Tensor) -> Tensor:
        if not self.copies:
            with ThreadPoolExecutor(1) as pool:
                self.copies.append(pool.submit(copy.deepcopy, self).result())
        return super().forward(hidden, text, emb)


def test_a_copy_that_is_made_during_a_run_meets_none_of_its_hooks(
    inputs: dict[str, Tensor],
) -> None:
    model = CopiedTransformer().eval().requires_grad_(False)
    capture_blocks(model, STREAMS, [3], inputs, grid=GRID)
    expected = model(**inputs)
    (copied,) = model.copies
    assert torch.equal(copied(**inputs), expected)
    taps = capture_blocks(copied, STREAMS, [3], inputs, grid=GRID)
    assert torch.equal(taps[3].x, stream_before(copied, inputs, 3))


def test_no_hook_remains_when_the_forward_fails(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    with pytest.raises(RuntimeError):
        capture_blocks(toy, STREAMS, [4], {**inputs, "text": torch.zeros(2, 3, 99)}, grid=GRID)
    assert hook_count(toy) == 0


def test_no_hook_remains_when_a_declared_path_does_not_exist(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    with pytest.raises(CaptureError, match="has no 'nowhere'"):
        capture_blocks(toy, (stream("first", attention="nowhere"),), [0], inputs, grid=GRID)
    assert hook_count(toy) == 0


def test_a_block_that_is_never_reached_is_named(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    toy.unused = nn.ModuleList([ToyBlock()])
    with pytest.raises(CaptureError, match="never reached block 0"):
        capture_blocks(toy, (stream("unused"),), [0], inputs, grid=GRID)


def test_a_grid_that_does_not_fit_the_tokens_is_noticed(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    with pytest.raises(CaptureError, match="does not fit an image grid of 2 x 3"):
        capture_blocks(toy, STREAMS, [0], inputs, grid=(2, 3))


@pytest.mark.parametrize("blocks", [[-1], [5], [0, 99]])
def test_a_block_out_of_range_is_refused(
    toy: ToyTransformer, inputs: dict[str, Tensor], blocks: list[int]
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"block must lie in \[0, 4\]"):
        capture_blocks(toy, STREAMS, blocks, inputs, grid=GRID)


def test_no_block_at_all_is_refused(toy: ToyTransformer, inputs: dict[str, Tensor]) -> None:
    with pytest.raises(InvalidArgumentError, match="at least one block"):
        capture_blocks(toy, STREAMS, [], inputs, grid=GRID)


def test_a_block_that_was_not_loaded_says_what_to_load(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    toy.second[2] = nn.Identity()
    with pytest.raises(InvalidArgumentError, match="load the backbone with block=4"):
        capture_blocks(toy, STREAMS, [4], inputs, grid=GRID)


def test_values_that_are_not_finite_are_named(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    inputs["hidden"][0, 0, 0] = float("inf")
    with pytest.raises(CaptureError, match="input of block 1 holds NaN or infinity"):
        capture_blocks(toy, STREAMS, [1], inputs, grid=GRID)


def test_gradients_reach_the_input(toy: ToyTransformer, inputs: dict[str, Tensor]) -> None:
    inputs["hidden"].requires_grad_()
    capture_blocks(toy, STREAMS, [3], inputs, grid=GRID)[3].x.square().sum().backward()
    assert inputs["hidden"].grad is not None and inputs["hidden"].grad.abs().min() > 0


def test_threads_that_share_a_transformer_capture_their_own_blocks(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    def call(number: int) -> bool:
        block, rows = number % 5, 1 + number % 2
        mine = {name: value[:rows] * (1 + number) for name, value in inputs.items()}
        tap = capture_blocks(toy, STREAMS, [block], mine, grid=GRID)[block]
        return torch.equal(tap.x, stream_before(toy, mine, block))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(call, range(60)))
    finally:
        sys.setswitchinterval(interval)
    assert hook_count(toy) == 0


def test_another_threads_own_forward_does_not_meet_the_hooks(
    toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    expected = toy(**inputs)
    found: list[Tensor] = []

    class Meanwhile(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            toy.first[0].after = nn.Identity()
            with ThreadPoolExecutor(1) as pool:
                found.append(pool.submit(toy, **inputs).result())
            return x

    toy.first[0].after = Meanwhile()
    tap = capture_blocks(toy, STREAMS, [3], inputs, grid=GRID)[3]
    assert torch.equal(found[0], expected)
    assert torch.equal(tap.x, stream_before(toy, inputs, 3))


@pytest.mark.parametrize("part", ["block", "transformer", "wrapper"])
def test_what_was_compiled_is_captured_as_it_is(
    part: str, toy: ToyTransformer, inputs: dict[str, Tensor]
) -> None:
    expected = capture_blocks(toy, STREAMS, [1], inputs, grid=GRID)[1]
    wrapped: Any = torch.compile(toy, backend="eager") if part == "wrapper" else toy
    if part == "transformer":
        toy.compile(backend="eager")
    if part == "block":
        for block in toy.first:
            block.compile(backend="eager")
    wrapped(**inputs)
    tap = capture_blocks(wrapped, STREAMS, [1], inputs, grid=GRID)[1]
    assert torch.equal(tap.x, expected.x) and torch.equal(modulate(tap), modulate(expected))
    torch.testing.assert_close(wrapped(**inputs), toy._call_impl(**inputs))
