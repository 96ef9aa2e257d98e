"""A diffusers transformer and its inputs in, the inputs of chosen blocks out, by forward hooks.

No forward is rewritten. At block k three things are seen: the tokens that enter the block's first
normalisation, the shift and scale that the block itself computes, and the modulated stream that
enters its attention. The third must follow from the first two; that is checked when a block is
first captured in a dtype, so a family that is declared wrongly, or a library that changed, raises
an error and gives no other features. There the forward stops.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kornia_ditf.errors import CaptureError, InvalidArgumentError
from kornia_ditf.treatments import modulate
from kornia_ditf.types import Tap, TokenNorm
from kornia_ditf.utils.hooks import Hook, StopForward, run_with_hooks
from kornia_ditf.utils.values import require, values_are_checked


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
class LinearModulation:
    """A linear layer of the block gives all its modulation in chunks of the block's width.

    Args:
        module: path of the linear layer inside the block.
        shift: index of the shift's chunk, None where the family has none.
        scale: index of the scale's chunk, None where the family has none.
    """

    module: str
    shift: int | None = 0
    scale: int | None = 1

    def read(self, call: BlockCall, width: int) -> tuple[Tensor | None, Tensor | None]:
        if call.output is None:
            raise CaptureError(f"{self.module!r} did not run before the block's attention")
        chunks = call.output.reshape(*call.output.shape[:-1], -1, width)
        return _chunk(chunks, self.shift), _chunk(chunks, self.scale)


@dataclass(frozen=True, slots=True)
class TableModulation:
    """A table of the block plus an embedding shared by all blocks (adaLN-single).

    Args:
        argument: name of the block's argument that holds the embedding, (B, chunks * width),
            (B, chunks, width) or, for each token, (B, N, chunks * width).
        table: name of the block's table, (chunks, width).
        shift: index of the shift's row, None where the family has none.
        scale: index of the scale's row, None where the family has none.
    """

    argument: str = "timestep"
    table: str = "scale_shift_table"
    shift: int | None = 0
    scale: int | None = 1
    module: None = None

    def read(self, call: BlockCall, width: int) -> tuple[Tensor | None, Tensor | None]:
        table: Tensor = getattr(call.block, self.table)
        rows = table.reshape(1, -1, width) + _argument_rows(call, self.argument, width)
        return _chunk(rows, self.shift), _chunk(rows, self.scale)


@dataclass(frozen=True, slots=True)
class ArgumentModulation:
    """An argument of the block is the modulation itself, as one for all blocks is passed on.

    Args:
        argument: name of the block's argument, (B, chunks * width), (B, chunks, width) or, for
            each token, (B, N, chunks * width).
        shift: index of the shift's chunk, None where the family has none.
        scale: index of the scale's chunk, None where the family has none.
    """

    argument: str
    shift: int | None = 0
    scale: int | None = 1
    module: None = None

    def read(self, call: BlockCall, width: int) -> tuple[Tensor | None, Tensor | None]:
        rows = _argument_rows(call, self.argument, width)
        return _chunk(rows, self.shift), _chunk(rows, self.scale)


@dataclass(frozen=True, slots=True)
class NoModulation:
    """The block normalises its stream and neither scales nor shifts it: it has no AdaLN."""

    module: None = None

    def read(self, call: BlockCall, width: int) -> tuple[None, None]:
        return None, None


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


def count_blocks(transformer: nn.Module, streams: Sequence[BlockStream]) -> int:
    """Count the blocks of all lists together."""
    return sum(len(block_list(transformer, stream)) for stream in streams)


def capture_blocks(
    transformer: nn.Module,
    streams: Sequence[BlockStream],
    blocks: Sequence[int],
    inputs: Mapping[str, Any],
    *,
    grid: tuple[int, int],
) -> dict[int, Tap]:
    """Run a transformer up to the last of some blocks and capture each one's input.

    Args:
        transformer: a diffusers transformer.
        streams: its block lists, in the order in which they run; numbering goes on through them.
        blocks: which blocks to capture, counted from 0.
        inputs: arguments of the transformer's forward.
        grid: rows and columns of the image tokens.

    Returns:
        one tap per block, in the transformer's dtype.

    Raises:
        InvalidArgumentError: no block, or one out of range.
        CaptureError: the forward ended without reaching a block, a block modulates otherwise than
            declared, or its input is not finite. No hook remains, whatever happens.
    """
    if not blocks:
        raise InvalidArgumentError("name at least one block to capture")
    recorders = {
        block: _Recorder(block, *_locate(transformer, streams, block), grid=grid)
        for block in sorted(set(blocks))
    }
    last = max(recorders)
    before = [hook for block, each in recorders.items() for hook in each.before(block == last)]
    after = [hook for each in recorders.values() for hook in each.after()]
    if run_with_hooks(transformer, inputs, before=before, after=after):
        return {block: recorder.tap() for block, recorder in recorders.items()}
    raise CaptureError(f"the forward of {type(transformer).__name__} never reached block {last}")


# Blocks, and the declarations and dtypes with which their modulation was found right.
_passed: WeakKeyDictionary[nn.Module, list[tuple[BlockStream, torch.dtype]]] = WeakKeyDictionary()
_every_capture = ContextVar("every_capture", default=False)


@contextmanager
def checking_every_capture(every: bool = True) -> Iterator[None]:
    """Compare each capture with what the attention receives, and not a block's first alone."""
    token = _every_capture.set(every)
    try:
        yield
    finally:
        _every_capture.reset(token)


class _Recorder:
    """Collects what one block shows to its hooks."""

    def __init__(
        self, number: int, block: nn.Module, stream: BlockStream, *, grid: tuple[int, int]
    ) -> None:
        self.number, self.block, self.stream, self.grid = number, block, stream, grid
        self.norm = _submodule(block, stream.norm)
        self.x: Tensor | None = None
        self.captured: Tap | None = None
        self.arguments: Mapping[str, Any] = {}
        self.output: Tensor | None = None

    def before(self, stop: bool) -> list[Hook]:
        def enter_block(args: Any, kwargs: Any) -> None:
            bound = inspect.signature(self.block.forward).bind(*args, **kwargs)
            self.arguments = bound.arguments

        def enter_norm(args: Any, kwargs: Any) -> None:
            if self.x is None:  # CogVideoX calls its norm again for the text
                self.x = self._image_tokens(self.stream.norm_input(args, kwargs))

        def enter_attention(args: Any, kwargs: Any) -> None:
            if self.captured is None:  # at once: later, offloaded weights are gone again
                self.captured = self._capture(self._image_tokens(first_tensor(args, kwargs)))
            if stop:
                raise StopForward

        attention = _submodule(self.block, self.stream.attention)
        return [(self.block, enter_block), (self.norm, enter_norm), (attention, enter_attention)]

    def after(self) -> list[Hook]:
        def leave_module(_: Any, output: Tensor) -> None:
            # FIBO 2 calls it again for what is not noisy.
            self.output = output if self.output is None else self.output

        path = self.stream.modulation.module
        return [] if path is None else [(_submodule(self.block, path), leave_module)]

    def tap(self) -> Tap:
        if self.captured is None:
            raise CaptureError(f"block {self.number} never reached its attention")
        return self.captured

    def _capture(self, attended: Tensor) -> Tap:
        if self.x is None:
            raise CaptureError(f"block {self.number} never normalised its input")
        call = BlockCall(self.block, self.arguments, self.output)
        read = self.stream.modulation.read(call, self.x.shape[-1])
        # Rows past the batch are for text or a reference image, at another time.
        shift, scale = (None if value is None else value[: len(self.x)] for value in read)
        x = self.x.to(attended.dtype)  # Wan makes float32 of it to normalise
        norm = read_norm(self.norm, zero_centred=self.stream.zero_centred)
        tap = Tap(x, shift, scale, self.grid, norm)
        if values_are_checked():
            require(torch.isfinite(tap.x).all(), lambda: _not_finite(tap, self.number))
            self._check_modulation(tap, attended)
        return tap

    def _check_modulation(self, tap: Tap, attended: Tensor) -> None:
        key, passed = (self.stream, tap.x.dtype), _passed.setdefault(self.block, [])
        if key in passed and not _every_capture.get():
            return
        error = modulation_error(tap, attended)
        # Equal to the bit in float32; a family may normalise or add otherwise in bfloat16.
        tolerance = 8 * torch.finfo(tap.x.dtype).eps
        if error > tolerance:
            raise CaptureError(
                f"block {self.number} does not modulate as its family declares (off by "
                f"{error:.1e} of the largest value, at most {tolerance:.1e} is rounding): norm, "
                "shift or scale are elsewhere in this version of the model"
            )
        if key not in passed and math.isfinite(error):
            passed.append(key)

    def _image_tokens(self, stream: Tensor) -> Tensor:
        count = self.grid[0] * self.grid[1]
        text = stream.shape[1] - count
        if text < 0 or (text and self.stream.tokens == "all"):
            raise CaptureError(
                f"block {self.number} carries {stream.shape[1]} tokens, "
                f"which does not fit an image grid of {self.grid[0]} x {self.grid[1]}"
            )
        return stream[:, :count] if self.stream.tokens == "first" else stream[:, text:]


def read_norm(module: nn.Module, *, zero_centred: bool = False) -> TokenNorm:
    """Describe a normalisation module of a block as a value.

    Args:
        module: a LayerNorm or an RMSNorm.
        zero_centred: whether its weight is the gain's difference from 1.
    """
    kind: Literal["layer", "rms"] = "layer" if isinstance(module, nn.LayerNorm) else "rms"
    if kind == "rms" and "RMSNorm" not in type(module).__name__:
        raise CaptureError(f"{type(module).__name__} is neither a LayerNorm nor an RMSNorm")
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    weight = weight + 1 if weight is not None and zero_centred else weight
    return TokenNorm(kind, float(getattr(module, "eps", None) or 0.0), weight, bias)


def modulation_error(tap: Tap, attended: Tensor) -> float:
    """Measure how far a captured modulation is from what the block's attention received.

    Returns:
        the largest difference, as a fraction of the largest value received.
    """
    with torch.no_grad():
        difference = (modulate(tap).float() - attended.float()).abs().max()
        return float(difference / attended.float().abs().max().clamp_min(1e-12))


def _not_finite(tap: Tap, block: int) -> CaptureError:
    advice = "; its activations overflow float16: load it with dtype bfloat16 or float32"
    return CaptureError(
        f"the input of block {block} holds NaN or infinity"
        + (advice if tap.x.dtype == torch.float16 else "; check the image and the weights")
    )


def _submodule(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise CaptureError(
            f"{type(module).__name__} has no {path!r}, which its family names"
        ) from error


def block_list(transformer: nn.Module, stream: BlockStream) -> nn.ModuleList:
    """Return a list of blocks; those that were not loaded are identities."""
    blocks = _submodule(transformer, stream.blocks)
    if not isinstance(blocks, nn.ModuleList):
        raise CaptureError(f"{stream.blocks!r} of {type(transformer).__name__} is no block list")
    return blocks


def _locate(
    transformer: nn.Module, streams: Sequence[BlockStream], block: int
) -> tuple[nn.Module, BlockStream]:
    position = block
    for stream in streams:
        blocks = block_list(transformer, stream)
        if 0 <= position < len(blocks):
            found = blocks[position]
            if isinstance(found, nn.Identity):
                raise InvalidArgumentError(
                    f"block {block} was not loaded; load the backbone with block={block} or more"
                )
            return found, stream
        position -= len(blocks)
    count = count_blocks(transformer, streams)
    raise InvalidArgumentError(f"block must lie in [0, {count - 1}], got {block}")


def _argument_rows(call: BlockCall, name: str, width: int) -> Tensor:
    value = call.arguments.get(name)
    if not isinstance(value, Tensor):
        raise CaptureError(
            f"the block {type(call.block).__name__} was not called with a tensor {name!r}; "
            f"its arguments: {', '.join(call.arguments)}"
        )
    if value.shape[-1] == width and value.ndim > 2:
        return value
    rows = value.reshape(*value.shape[:-1], -1, width)
    return rows.squeeze(1) if value.ndim == 3 and value.shape[1] == 1 else rows


def _chunk(chunks: Tensor, index: int | None) -> Tensor | None:
    return None if index is None else chunks[..., index, :]


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Take the first argument of a module's call, which is the stream, whatever its name."""
    value = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None))
    if not isinstance(value, Tensor):
        raise CaptureError(f"expected a tensor as first argument, got {type(value).__name__}")
    return value
