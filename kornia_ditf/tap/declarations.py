"""What a family declares: where its blocks keep normalisation, modulation and attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from kornia_ditf.errors import CaptureError


@dataclass(frozen=True, slots=True, eq=False)
class BlockCall:
    """One call of a block, as its modulation is read from it."""

    block: nn.Module
    arguments: Mapping[str, Any]
    output: Tensor | None  # of the module that the modulation names


class Modulation(Protocol):
    """Where a block keeps the shift and scale of its first AdaLN."""

    @property
    def module(self) -> str | None:
        """The submodule of the block whose output is needed, if one is."""

    def read(self, call: BlockCall, width: int) -> tuple[Tensor | None, Tensor | None]:
        """Return shift and scale, each (B, width), (B, N, width) or None."""


@dataclass(frozen=True, slots=True)
class NoModulation:
    """The block normalises its stream and neither scales nor shifts it: it has no AdaLN."""

    module: None = None

    def read(self, call: BlockCall, width: int) -> tuple[None, None]:
        return None, None


class ChunkedModulation(ABC):
    """Shift, scale and residual gates as chunks of one tensor.

    They have the block's width: usually shift, scale and gate of the attention, then those of the
    feed-forward.
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
        shift, scale = (
            None if index is None else chunks[..., index, :] for index in (self.shift, self.scale)
        )
        return shift, scale

    def read_gates(self, call: BlockCall, width: int, rows: int) -> Tensor:
        """Return mean magnitudes of the gates, shape (gates, width); no rows where there are none.

        Gates that pass through tanh or are added to one are returned as the layer gives them.
        """
        chunks = self.chunks(call, width)[:rows]
        count = chunks.shape[-2]
        thirds = range(2, count, 3) if count % 3 == 0 else ()
        found = thirds if self.gates is None else self.gates
        return chunks[..., list(found), :].float().abs().flatten(0, -3).mean(0)


@dataclass(frozen=True, slots=True)
class LinearModulation(ChunkedModulation):
    """A linear layer of the block gives all its modulation.

    Args:
        module: path of the linear layer inside the block.
        shift, scale, gates: see `ChunkedModulation`.
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
class ArgumentModulation(ChunkedModulation):
    """An argument of the block is the modulation itself, as one for all blocks is passed on.

    Args:
        argument: name of the block's argument, (B, chunks * width), (B, chunks, width) or, for
            each token, (B, N, chunks * width).
        shift, scale, gates: see `ChunkedModulation`.
    """

    argument: str
    shift: int | None = 0
    scale: int | None = 1
    gates: tuple[int, ...] | None = None
    module: None = None

    def chunks(self, call: BlockCall, width: int) -> Tensor:
        value = call.arguments.get(self.argument)
        if not isinstance(value, Tensor):
            raise CaptureError(
                f"the block {type(call.block).__name__} was not called with a tensor "
                f"{self.argument!r}; its arguments: {', '.join(call.arguments)}"
            )
        if value.shape[-1] == width and value.ndim > 2:
            return value
        rows = value.reshape(*value.shape[:-1], -1, width)
        return rows.squeeze(1) if value.ndim == 3 and value.shape[1] == 1 else rows


@dataclass(frozen=True, slots=True)
class TableModulation(ChunkedModulation):
    """A table of the block plus an embedding shared by all blocks (adaLN-single).

    Args:
        argument: name of the block's argument that holds the embedding, shaped as for
            `ArgumentModulation`.
        table: path of the block's table, (chunks, width) or (1, chunks, width).
        shift, scale, gates: see `ChunkedModulation`.
    """

    argument: str = "timestep"
    table: str = "scale_shift_table"
    shift: int | None = 0
    scale: int | None = 1
    gates: tuple[int, ...] | None = None
    module: None = None

    def chunks(self, call: BlockCall, width: int) -> Tensor:
        table: Tensor = attrgetter(self.table)(call.block)
        embedding = ArgumentModulation(self.argument).chunks(call, width)
        return table.reshape(1, -1, width) + embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStream:
    """Where the blocks of one list keep what is captured; paths are relative to the block.

    Args:
        blocks: the transformer's attribute that holds the list.
        norm: the first AdaLN's normalisation, whose input is the block's raw stream.
        attention: the module whose first argument is the modulated stream.
        modulation: where shift and scale are.
        tokens: where the image tokens stand in the stream: all of it, or first or last after text.
        sequence_first: whether the norm receives (N, B, D).
        zero_centred: whether the norm keeps its gain as its difference from 1.
    """

    blocks: str
    norm: str
    attention: str
    modulation: Modulation
    tokens: Literal["all", "first", "last"] = "all"
    sequence_first: bool = False
    zero_centred: bool = False

    def norm_input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Take the raw stream (B, N, D) from a call of the norm."""
        raw = first_tensor(args, kwargs)
        return raw.transpose(0, 1) if self.sequence_first else raw


ADALN_SINGLE = BlockStream(
    blocks="transformer_blocks", norm="norm1", attention="attn1", modulation=TableModulation()
)
"""The blocks of PixArt and Sana, whose modulation is one for all plus a table of each."""

ADALN_ZERO = BlockStream(
    blocks="transformer_blocks",
    norm="norm1.norm",
    attention="attn1",
    modulation=LinearModulation("norm1.linear"),
)
"""The blocks of DiT: diffusers' AdaLayerNormZero, a linear layer of its own in each."""

Facet = Literal["input", "query", "key", "value"]
"""What is taken of a block: its input, or what its attention projects of it."""


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Take the first argument of a module's call, which is the stream, whatever its name."""
    value = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None))
    if not isinstance(value, Tensor):
        raise CaptureError(f"expected a tensor as first argument, got {type(value).__name__}")
    return value
