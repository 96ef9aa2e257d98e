"""What a family declares: where its blocks keep normalisation, modulation and attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from kornia_ditf.errors import CaptureError


@dataclass(frozen=True, slots=True, eq=False)
class BlockCall:
    """One call of a block, as its modulation is read from it."""

    block: nn.Module
    arguments: Mapping[str, Any]
    output: Tensor | None  # of the module that the modulation names


class Modulation(ABC):
    """Where a block keeps the shift and scale of its first AdaLN, and its residual gates.

    Its modulation is cut into chunks of the block's width: usually shift, scale and gate of the
    attention, then those of the feed-forward.
    """

    module: str | None
    """The submodule of the block whose output is needed, if one is."""
    shift: int | None
    """Index of the shift's chunk; None where the family has none."""
    scale: int | None
    """Index of the scale's chunk; None where the family has none."""
    gates: tuple[int, ...] | None
    """Indices of the gates' chunks; None takes every third, as most families have them."""

    @abstractmethod
    def chunks(self, call: BlockCall, width: int) -> Tensor:
        """Return all chunks, shape (B, chunks, width) or (B, N, chunks, width)."""

    def read(self, call: BlockCall, width: int) -> tuple[Tensor | None, Tensor | None]:
        """Return shift and scale, each (B, width), (B, N, width) or None."""
        chunks = self.chunks(call, width)
        return _chunk(chunks, self.shift), _chunk(chunks, self.scale)

    def read_gates(self, call: BlockCall, width: int) -> Tensor:
        """Return mean magnitudes of the gates, shape (gates, width); no rows where there are none.

        Gates that pass through tanh or are added to one are returned as the layer gives them.
        """
        chunks = self.chunks(call, width)
        count = chunks.shape[-2]
        thirds = range(2, count, 3) if count % 3 == 0 else ()
        found = thirds if self.gates is None else self.gates
        return chunks[..., list(found), :].float().abs().flatten(0, -3).mean(0)


@dataclass(frozen=True, slots=True)
class LinearModulation(Modulation):
    """A linear layer of the block gives all its modulation.

    Args:
        module: path of the linear layer inside the block.
        shift: see `Modulation`.
        scale: see `Modulation`.
        gates: see `Modulation`.
    """

    module: str
    shift: int | None = 0
    scale: int | None = 1
    gates: tuple[int, ...] | None = None

    def chunks(self, call: BlockCall, width: int) -> Tensor:
        if call.output is None:
            raise CaptureError(f"{self.module!r} did not run before the block's attention")
        return call.output.reshape(*call.output.shape[:-1], -1, width)


@dataclass(frozen=True, slots=True)
class TableModulation(Modulation):
    """A table of the block plus an embedding shared by all blocks (adaLN-single).

    Args:
        argument: name of the block's argument that holds the embedding, (B, chunks * width) or
            (B, chunks, width).
        table: name of the block's table, (chunks, width).
        shift: see `Modulation`.
        scale: see `Modulation`.
        gates: see `Modulation`.
    """

    argument: str = "timestep"
    table: str = "scale_shift_table"
    shift: int | None = 0
    scale: int | None = 1
    gates: tuple[int, ...] | None = None
    module: None = None

    def chunks(self, call: BlockCall, width: int) -> Tensor:
        table: Tensor = getattr(call.block, self.table)
        return table.reshape(1, -1, width) + _argument_rows(call, self.argument, width)


@dataclass(frozen=True, slots=True)
class ArgumentModulation(Modulation):
    """An argument of the block is the modulation itself, as one for all blocks is passed on.

    Args:
        argument: name of the block's argument, (B, chunks * width) or (B, chunks, width).
        shift: see `Modulation`.
        scale: see `Modulation`.
        gates: see `Modulation`.
    """

    argument: str
    shift: int | None = 0
    scale: int | None = 1
    gates: tuple[int, ...] | None = None
    module: None = None

    def chunks(self, call: BlockCall, width: int) -> Tensor:
        return _argument_rows(call, self.argument, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStream:
    """Where the blocks of one list keep what is captured; paths are relative to the block.

    Args:
        blocks: the transformer's attribute that holds the list.
        norm: the first AdaLN's normalisation, whose input is the block's raw stream.
        attention: the module whose first argument is the modulated stream.
        modulation: where shift and scale are.
        tokens: where the image tokens stand in the stream: all of it, or first or last after text.
    """

    blocks: str
    norm: str
    attention: str
    modulation: Modulation
    tokens: Literal["all", "first", "last"] = "all"


Facet = Literal["input", "query", "key", "value"]
"""What is taken of a block: its input, or what its attention projects of it."""


def _argument_rows(call: BlockCall, name: str, width: int) -> Tensor:
    value = call.arguments.get(name)
    if not isinstance(value, Tensor):
        raise CaptureError(
            f"the block {type(call.block).__name__} was not called with a tensor {name!r}; "
            f"its arguments: {', '.join(call.arguments)}"
        )
    return value.reshape(value.shape[0], -1, width)


def _chunk(chunks: Tensor, index: int | None) -> Tensor | None:
    return None if index is None else chunks[..., index, :]
