"""Where families keep norm, shift and scale, and what is noticed of a wrong declaration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toy_transformer import GRID, TOKENS, WIDTH, ToyTransformer, stream

from kornia_ditf.errors import CaptureError
from kornia_ditf.tap import (
    ArgumentModulation,
    LinearModulation,
    TableModulation,
    capture_blocks,
    modulation_error,
    read_norm,
)


@pytest.mark.parametrize(
    "modulation",
    [LinearModulation("linear", shift=1, scale=0), LinearModulation("linear", 0, 2)],
)
def test_a_wrong_declaration_is_noticed(
    toy: ToyTransformer, inputs: dict[str, Tensor], modulation: LinearModulation
) -> None:
    with pytest.raises(CaptureError, match="does not modulate as its family declares"):
        capture_blocks(toy, (stream("first", modulation=modulation),), [1], inputs, grid=GRID)


def test_the_blocks_own_epsilon_and_affine_weights_are_read() -> None:
    norm = read_norm(nn.LayerNorm(WIDTH, eps=0.25))
    assert (norm.kind, norm.eps) == ("layer", 0.25)
    assert norm.weight is not None and norm.bias is not None
    assert read_norm(nn.RMSNorm(WIDTH, eps=0.5)).kind == "rms"


@pytest.mark.parametrize("name", ["eps", "variance_epsilon", "epsilon", "norm_eps"])
def test_an_rms_norm_of_research_code_is_read_whatever_it_calls_its_epsilon(name: str) -> None:
    class LlamaRmsnorm(nn.Module):
        weight = torch.full((WIDTH,), 2.0)

    module = LlamaRmsnorm()
    setattr(module, name, 0.5)
    x = torch.arange(2.0 * WIDTH).view(1, 2, WIDTH)
    expected = nn.functional.rms_norm(x, [WIDTH], module.weight, 0.5)
    torch.testing.assert_close(read_norm(module)(x), expected)


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
