from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.errors import CaptureError, InvalidArgumentError
from kornia_ditf.tap import (
    ArgumentModulation,
    BlockStream,
    LinearModulation,
    TableModulation,
    capture_blocks,
    count_blocks,
    modulation_error,
    read_norm,
)
from kornia_ditf.treatments import modulate

WIDTH, TEXT, GRID = 16, 3, (2, 4)
TOKENS = GRID[0] * GRID[1]


class ToyBlock(nn.Module):
    """A block with AdaLN; `after` tells what runs behind the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-5)
        self.linear = nn.Linear(WIDTH, 6 * WIDTH)
        self.attention = nn.Linear(WIDTH, WIDTH)
        self.after = nn.Identity()

    def forward(self, stream: Tensor, emb: Tensor) -> Tensor:
        shift, scale, gate, *_ = self.linear(F.silu(emb)).chunk(6, dim=-1)
        modulated = self.norm(stream) * (1 + scale[:, None]) + shift[:, None]
        return stream + self.after(gate[:, None] * self.attention(modulated))


class ToyTransformer(nn.Module):
    """Two lists of blocks; the second sees text before the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(ToyBlock() for _ in range(2))
        self.second = nn.ModuleList(ToyBlock() for _ in range(3))
        self.calls = 0

    def forward(self, hidden: Tensor, text: Tensor, emb: Tensor) -> Tensor:
        self.calls += 1
        for block in self.first:
            hidden = block(hidden, emb=emb)
        hidden = torch.cat([text, hidden], 1)
        for block in self.second:
            hidden = block(hidden, emb=emb)
        return hidden[:, TEXT:]


def stream(blocks: str, **changes: Any) -> BlockStream:
    known: dict[str, Any] = {
        "norm": "norm",
        "attention": "attention",
        "modulation": LinearModulation("linear"),
    }
    return BlockStream(blocks=blocks, **{**known, **changes})


STREAMS = (stream("first"), stream("second", tokens="last"))


@pytest.fixture
def toy() -> ToyTransformer:
    torch.manual_seed(0)
    return ToyTransformer().eval().requires_grad_(False)


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"hidden": (2, TOKENS, WIDTH), "text": (2, TEXT, WIDTH), "emb": (2, WIDTH)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def hook_count(module: nn.Module) -> int:
    return sum(
        len(child._forward_pre_hooks) + len(child._forward_hooks) for child in module.modules()
    )


def stream_before(toy: ToyTransformer, inputs: dict[str, Tensor], block: int) -> Tensor:
    """Compute the image tokens that enter a block, by running the blocks before it."""
    hidden, emb = inputs["hidden"], inputs["emb"]
    for one in toy.first[:block]:
        hidden = one(hidden, emb)
    if block < 2:
        return hidden
    hidden = torch.cat([inputs["text"], hidden], 1)
    for one in toy.second[: block - 2]:
        hidden = one(hidden, emb)
    return hidden[:, TEXT:]


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


@pytest.mark.parametrize(
    "modulation",
    [LinearModulation("linear", shift=1, scale=0), LinearModulation("linear", scale=2)],
)
def test_a_wrong_declaration_is_noticed(
    toy: ToyTransformer, inputs: dict[str, Tensor], modulation: LinearModulation
) -> None:
    with pytest.raises(CaptureError, match="does not modulate as its family declares"):
        capture_blocks(toy, (stream("first", modulation=modulation),), [1], inputs, grid=GRID)


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


def test_the_blocks_own_epsilon_and_affine_weights_are_read() -> None:
    norm = read_norm(nn.LayerNorm(WIDTH, eps=0.25))
    assert (norm.kind, norm.eps) == ("layer", 0.25)
    assert norm.weight is not None and norm.bias is not None
    assert read_norm(nn.RMSNorm(WIDTH, eps=0.5)).kind == "rms"


def test_a_module_that_is_no_normalisation_is_refused() -> None:
    with pytest.raises(CaptureError, match="Linear is neither"):
        read_norm(nn.Linear(2, 2))


def test_the_modulation_error_is_relative_to_the_stream() -> None:
    from kornia_ditf.types import Tap

    tap = Tap(torch.randn(1, 8, WIDTH), None, None, GRID)
    attended = tap.norm(tap.x)
    assert modulation_error(tap, attended) == 0
    assert modulation_error(tap, 2 * attended) == pytest.approx(0.5, abs=1e-6)


class TableBlock(nn.Module):
    """A block whose modulation is a table plus an embedding shared by all blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-6)
        self.scale_shift_table = nn.Parameter(torch.randn(6, WIDTH))
        self.attention = nn.Linear(WIDTH, WIDTH)

    def forward(self, stream: Tensor, timestep: Tensor) -> Tensor:
        rows = self.scale_shift_table[None] + timestep.reshape(len(stream), 6, -1)
        shift, scale = rows[:, :1], rows[:, 1:2]
        return stream + self.attention(self.norm(stream) * (1 + scale) + shift)


@pytest.mark.parametrize("named", [True, False])
def test_a_table_is_read_whether_the_embedding_is_passed_by_name_or_position(named: bool) -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(TableBlock() for _ in range(2))

        def forward(self, hidden: Tensor, timestep: Tensor) -> Tensor:
            for block in self.blocks:
                hidden = block(hidden, timestep=timestep) if named else block(hidden, timestep)
            return hidden

    inputs = {"hidden": torch.randn(2, TOKENS, WIDTH), "timestep": torch.randn(2, 6 * WIDTH)}
    streams = (stream("blocks", modulation=TableModulation()),)
    model = Table()
    tap = capture_blocks(model, streams, [1], inputs, grid=GRID)[1]
    table = model.blocks[1].scale_shift_table
    assert tap.shift is not None and tap.scale is not None
    torch.testing.assert_close(tap.shift, table[0] + inputs["timestep"][:, :WIDTH])
    torch.testing.assert_close(tap.scale, table[1] + inputs["timestep"][:, WIDTH : 2 * WIDTH])


class ArgumentBlock(nn.Module):
    """A block that is given its modulation, scale first, and normalises in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-6)
        self.attention = nn.Linear(WIDTH, WIDTH, dtype=torch.bfloat16)

    def forward(self, stream: Tensor, temb: Tensor) -> Tensor:
        scale, shift = temb.flatten(1).unsqueeze(1).float().chunk(2, dim=-1)
        modulated = self.norm(stream.float()) * (1 + scale) + shift
        return stream + self.attention(modulated.to(stream.dtype))


class Given(nn.Module):
    """A transformer of such blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ArgumentBlock() for _ in range(2))

    def forward(self, hidden: Tensor, temb: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden, temb=temb)
        return hidden


@pytest.mark.parametrize("shape", [(2, 2 * WIDTH), (2, 2, WIDTH), (2, 1, 2 * WIDTH)])
def test_a_modulation_may_be_an_argument_of_any_shape(shape: tuple[int, ...]) -> None:
    temb = torch.randn(shape, dtype=torch.bfloat16)
    inputs = {"hidden": torch.randn(2, TOKENS, WIDTH, dtype=torch.bfloat16), "temb": temb}
    streams = (stream("blocks", modulation=ArgumentModulation("temb", shift=1, scale=0)),)
    tap = capture_blocks(Given(), streams, [1], inputs, grid=GRID)[1]
    assert tap.scale is not None and tap.shift is not None
    assert torch.equal(tap.scale, temb.flatten(1)[:, :WIDTH])
    assert torch.equal(tap.shift, temb.flatten(1)[:, WIDTH:])


def test_a_tap_has_the_streams_dtype_whatever_the_block_normalises_in() -> None:
    hidden = torch.randn(2, TOKENS, WIDTH, dtype=torch.bfloat16)
    inputs = {"hidden": hidden, "temb": torch.randn(2, 2 * WIDTH, dtype=torch.bfloat16)}
    streams = (stream("blocks", modulation=ArgumentModulation("temb", shift=1, scale=0)),)
    tap = capture_blocks(Given(), streams, [0], inputs, grid=GRID)[0]
    assert tap.x.dtype == torch.bfloat16 and torch.equal(tap.x, hidden)


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
