"""The inputs of chosen blocks of a diffusers transformer, captured by forward hooks.

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
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kornia_ditf.errors import CaptureError, InvalidArgumentError
from kornia_ditf.tap.declarations import (
    BlockCall,
    BlockStream,
    ChunkedModulation,
    Facet,
    first_tensor,
)
from kornia_ditf.treatments import modulate
from kornia_ditf.types import Tap, TokenNorm
from kornia_ditf.utils.hooks import Hook, StopForward, run_with_hooks
from kornia_ditf.utils.values import require, values_are_checked


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
    facet: Facet = "input",
) -> dict[int, Tap]:
    """Run a transformer up to the last of some blocks and capture each one's input.

    Args:
        transformer: a diffusers transformer.
        streams: its block lists, in the order in which they run; numbering goes on through them.
        blocks: which blocks to capture, counted from 0.
        inputs: arguments of the transformer's forward.
        grid: rows and columns of the image tokens.
        facet: take the output of the attention's `to_q`, `to_k` or `to_v` in place of the block's
            input; such a tap has no modulation.

    Returns:
        one tap per block, in the transformer's dtype.

    Raises:
        InvalidArgumentError: no block, or one out of range.
        CaptureError: the forward ended without reaching a block, a block modulates otherwise than
            declared, or its input is not finite. No hook remains, whatever happens.
    """
    if not blocks:
        raise InvalidArgumentError("name at least one block to capture")
    recorders = [
        _Recorder(block, *_locate(transformer, streams, block), grid, facet)
        for block in sorted(set(blocks))
    ]
    _run(transformer, inputs, recorders)
    return {recorder.number: recorder.tap() for recorder in recorders}


def capture_gates(
    transformer: nn.Module,
    streams: Sequence[BlockStream],
    block: int,
    inputs: Mapping[str, Any],
    *,
    grid: tuple[int, int],
) -> Tensor:
    """Return the magnitudes of the residual gates of all blocks before one, shape (gates, D).

    Arguments and errors as for `capture_blocks`. Gates follow from timestep and prompt alone, so
    any latent will do. There are no rows for the first block.
    """
    _locate(transformer, streams, block)
    if not block:
        return torch.empty(0, 0, device="cpu")
    recorders = [
        _Recorder(number, *_locate(transformer, streams, number), grid, "gates")
        for number in range(block)
    ]
    _run(transformer, inputs, recorders)
    return torch.cat([recorder.gates() for recorder in recorders])


def _run(transformer: nn.Module, inputs: Mapping[str, Any], recorders: Sequence[_Recorder]) -> None:
    recorders[-1].ends_forward = True
    before = [hook for each in recorders for hook in each.before()]
    after = [hook for each in recorders for hook in each.after()]
    if not run_with_hooks(transformer, inputs, before=before, after=after):
        raise CaptureError(
            f"the forward of {type(transformer).__name__} never reached block "
            f"{recorders[-1].number}"
        )


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
        self,
        number: int,
        block: nn.Module,
        stream: BlockStream,
        grid: tuple[int, int],
        wanted: Facet | Literal["gates"],
    ) -> None:
        self.number, self.block, self.stream, self.grid = number, block, stream, grid
        self.wanted, self.ends_forward = wanted, False
        self.projection: nn.Module | None = None
        if wanted != "input" and wanted != "gates":
            self.projection = facet_module(number, block, stream, wanted)
        self.norm = find_module(block, stream.norm)
        self.arguments: Mapping[str, Any] = {}
        self.output: Tensor | None = None
        self.x: Tensor | None = None
        self.captured: Tap | None = None
        self.read_gates: Tensor | None = None
        self.projected: Tensor | None = None

    def before(self) -> list[Hook]:
        def enter_block(args: Any, kwargs: Any) -> None:
            bound = inspect.signature(self.block.forward).bind(*args, **kwargs)
            self.arguments = bound.arguments

        def enter_norm(args: Any, kwargs: Any) -> None:
            if self.x is None:  # CogVideoX calls its norm again for the text
                self.x = self._image_tokens(self.stream.norm_input(args, kwargs))

        def enter_attention(args: Any, kwargs: Any) -> None:
            if self.captured is None:  # at once: later, offloaded weights are gone again
                self.captured = self._capture(self._image_tokens(first_tensor(args, kwargs)))
            if self.ends_forward and self.projection is None:
                raise StopForward

        attention = find_module(self.block, self.stream.attention)
        return [(self.block, enter_block), (self.norm, enter_norm), (attention, enter_attention)]

    def after(self) -> list[Hook]:
        def leave_module(_: Any, output: Tensor) -> None:
            # FIBO 2 calls it again for what is not noisy.
            self.output = output if self.output is None else self.output

        def leave_projection(_: Any, output: Tensor) -> None:
            if self.projected is None:
                self.projected = self._image_tokens(output)
            if self.ends_forward:
                raise StopForward

        path = self.stream.modulation.module
        hooks: list[Hook] = []
        if path is not None:
            hooks.append((find_module(self.block, path), leave_module))
        if self.projection is not None:
            hooks.append((self.projection, leave_projection))
        return hooks

    def tap(self) -> Tap:
        if self.captured is None:
            raise CaptureError(f"block {self.number} never reached its attention")
        if self.projection is None:
            return self.captured
        if self.projected is None:
            raise CaptureError(f"the attention of block {self.number} never projected its input")
        return self._finite(Tap(self.projected, None, None, self.grid))

    def gates(self) -> Tensor:
        if self.read_gates is not None:
            return self.read_gates
        return torch.empty(0, self.tap().x.shape[-1], device="cpu")  # the family has none

    def _capture(self, attended: Tensor) -> Tap:
        if self.x is None:
            raise CaptureError(f"block {self.number} never normalised its input")
        call = BlockCall(self.block, self.arguments, self.output)
        modulation, width = self.stream.modulation, self.x.shape[-1]
        # Rows past the batch are for text or a reference image, at another time.
        read = modulation.read(call, width)
        shift, scale = (None if value is None else value[: len(self.x)] for value in read)
        if self.wanted == "gates" and isinstance(modulation, ChunkedModulation):
            self.read_gates = modulation.read_gates(call, width, len(self.x))
        x = self.x.to(attended.dtype)  # Wan makes float32 of it to normalise
        norm = read_norm(self.norm, zero_centred=self.stream.zero_centred)
        tap = self._finite(Tap(x, shift, scale, self.grid, norm))
        if values_are_checked():
            self._check_modulation(tap, attended)
        return tap

    def _finite(self, tap: Tap) -> Tap:
        if values_are_checked():
            require(torch.isfinite(tap.x).all(), lambda: _not_finite(tap, self.number))
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
                f"block {self.number} does not modulate as its family declares (error {error:.1e} "
                f"of the largest value, at most {tolerance:.1e} allowed for rounding): norm, "
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


def facet_module(number: int, block: nn.Module, stream: BlockStream, facet: Facet) -> nn.Module:
    """Return the layer of a block's attention that projects a facet.

    Raises:
        InvalidArgumentError: the attention has none of its own.
    """
    attention = find_module(block, stream.attention)
    layer = getattr(attention, f"to_{facet[0]}", None)
    if not isinstance(layer, nn.Module):
        raise InvalidArgumentError(
            f"block {number} has no {facet} of its own (no to_{facet[0]} in its "
            f"{type(attention).__name__}); take facet='input'"
        )
    return layer


def facet_width(
    transformer: nn.Module, streams: Sequence[BlockStream], block: int, facet: Facet
) -> int:
    """Return the channels of a facet."""
    layer = facet_module(block, *_locate(transformer, streams, block), facet)
    return int(getattr(layer, "out_features", 0) or layer.get_parameter("weight").shape[0])


_EPSILONS = ("eps", "epsilon", "norm_eps", "variance_epsilon")


def read_norm(module: nn.Module, *, zero_centred: bool = False) -> TokenNorm:
    """Describe a normalisation module of a block as a value.

    Args:
        module: a LayerNorm or an RMSNorm.
        zero_centred: whether its weight is the gain's difference from 1.
    """
    kind: Literal["layer", "rms"] = "layer" if isinstance(module, nn.LayerNorm) else "rms"
    if kind == "rms" and "rmsnorm" not in type(module).__name__.lower():
        raise CaptureError(
            f"{type(module).__name__} is neither a LayerNorm nor an RMSNorm; `norm` must name the "
            "normalisation itself, whose class has RMSNorm in its name if it is not a LayerNorm"
        )
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    weight = weight + 1 if weight is not None and zero_centred else weight
    # Views, since what offloads a block points its own parameters elsewhere when it has run.
    weight, bias = (None if each is None else each.view_as(each) for each in (weight, bias))
    eps = next(filter(None, (getattr(module, name, None) for name in _EPSILONS)), 0.0)
    return TokenNorm(kind, float(eps), weight, bias)


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


def find_module(module: nn.Module, path: str) -> nn.Module:
    """Return a submodule by its path; a missing one raises CaptureError."""
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise CaptureError(
            f"{type(module).__name__} has no {path!r}, which its family names"
        ) from error


def block_list(transformer: nn.Module, stream: BlockStream) -> nn.ModuleList:
    """Return a list of blocks; those that were not loaded are identities."""
    blocks = find_module(transformer, stream.blocks)
    if not isinstance(blocks, nn.ModuleList):
        raise CaptureError(f"{stream.blocks!r} of {type(transformer).__name__} is not a block list")
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
