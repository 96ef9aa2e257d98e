"""Treatments of a tap: normalisation and the block's own AdaLN.

The treatments exist so that the worth of each step can be shown (DiTF, arXiv 2505.18584,
table 1); `adaln+discard` is the method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.massive import discard_channels, kept_channels
from kornia_ditf.types import Tap, TokenNorm

Treatment = Literal["raw", "adaln", "adaln+discard", "discard+layernorm"]
TREATMENTS: tuple[Treatment, ...] = get_args(Treatment)

_TOKENS = 64
"""So many pass through all steps at one time, and stay in the processor's cache between them."""


def modulate(tap: Tap) -> Tensor:
    """Normalise each token, then apply the block's own scale and shift.

    Returns:
        (1 + scale) * norm(x) + shift, shape (B, N, D), in the tap's dtype.

    Example:
        >>> tap = Tap(torch.randn(1, 4, 8), shift=torch.ones(1, 8), scale=torch.zeros(1, 8),
        ...           grid=(2, 2))
        >>> modulate(tap).mean(-1).round()
        tensor([[1., 1., 1., 1.]])
    """
    tokens = tap.norm(tap.x)
    if tap.scale is not None:
        tokens = tokens * (1 + _per_token(tap.scale))
    if tap.shift is not None:
        tokens = tokens + _per_token(tap.shift)
    return tokens


def treat(tap: Tap, treatment: Treatment, channels: Sequence[int] = ()) -> Tensor:
    """Turn a tap into descriptor tokens.

    Args:
        tap: a block's input and its modulation.
        treatment: `raw` (x as it is), `adaln` (normalise and modulate), `adaln+discard`
            (zero the massive channels first) or `discard+layernorm` (zero, normalise only).
        channels: the massive channels.

    Returns:
        tokens, shape (B, N, D).

    Raises:
        InvalidArgumentError: no such treatment, or a channel out of range.
    """
    match treatment:
        case "raw":
            return tap.x
        case "adaln":
            return modulate(tap)
        case "adaln+discard":
            return modulate(discard_channels(tap, channels))
        case "discard+layernorm":
            return tap.norm(discard_channels(tap, channels).x)
    known = ", ".join(TREATMENTS)
    raise InvalidArgumentError(f"treatment must be one of {known}, got {treatment!r}")


def unit_tokens(tap: Tap, channels: Sequence[int] = (), *, compiled: bool = False) -> Tensor:
    """Do the whole of `adaln+discard` and bring tokens to unit length, in one pass over memory.

    The same as `treat` and then `torch.nn.functional.normalize`, several times faster.

    Args:
        tap: a block's input and its modulation.
        channels: the massive channels.
        compiled: use `torch.compile`: faster still on a GPU, after a first call that can take half
            a minute and needs a compiler.

    Returns:
        tokens of unit length, shape (B, N, D), in the tap's dtype.

    Raises:
        InvalidArgumentError: a channel out of range.

    Example:
        >>> tap = Tap(torch.randn(1, 4, 8), None, None, grid=(2, 2))
        >>> unit_tokens(tap, [3]).norm(dim=-1).round(decimals=3)
        tensor([[1., 1., 1., 1.]])
    """
    keep = kept_channels(tap, channels)
    shift = None if tap.shift is None else _per_token(tap.shift)
    scale = None if tap.scale is None else _per_token(tap.scale)
    if compiled:
        return _compiled()(tap.x, keep, shift, scale, tap.norm)
    if tap.x.device.type != "cpu" or tap.x.requires_grad:
        return _unit_tokens(tap.x, keep, shift, scale, tap.norm)
    out = torch.empty_like(tap.x)
    count = tap.x.shape[1]
    for image in range(len(tap.x)):
        for start in range(0, count, _TOKENS):
            part = (slice(image, image + 1), slice(start, start + _TOKENS))
            out[part] = _unit_tokens(
                tap.x[part], keep, _part(shift, *part, count), _part(scale, *part, count), tap.norm
            )
    return out


def _unit_tokens(
    x: Tensor, keep: Tensor, shift: Tensor | None, scale: Tensor | None, norm: TokenNorm
) -> Tensor:
    tokens = norm(x * keep)
    if scale is not None:
        tokens = tokens * (1 + scale)
    if shift is not None:
        tokens = tokens + shift
    return F.normalize(tokens, dim=-1)


@cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_unit_tokens)


def _part(value: Tensor | None, images: slice, tokens: slice, count: int) -> Tensor | None:
    """Take what belongs to some tokens, of values that all tokens, or all images, may share."""
    if value is None:
        return None
    value = value[images] if len(value) > 1 else value
    return value[:, tokens] if value.shape[1] == count else value


def _per_token(value: Tensor) -> Tensor:
    return value[:, None] if value.ndim == 2 else value
