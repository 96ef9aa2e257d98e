"""Treatments of a tap: normalisation and the block's own AdaLN.

The treatments exist so that the worth of each step can be shown (DiTF, arXiv 2505.18584,
table 1); `adaln+discard` is the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from kornia_ditf.massive import discard_channels
from kornia_ditf.types import Tap
from kornia_ditf.utils.checks import check_one_of

Treatment = Literal["raw", "adaln", "adaln+discard", "discard+layernorm"]
TREATMENTS: tuple[Treatment, ...] = get_args(Treatment)


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
    check_one_of("treatment", treatment, TREATMENTS)
    match treatment:
        case "raw":
            return tap.x
        case "adaln":
            return modulate(tap)
        case "adaln+discard":
            return modulate(discard_channels(tap, channels))
        case "discard+layernorm":
            return tap.norm(discard_channels(tap, channels).x)


def _per_token(value: Tensor) -> Tensor:
    return value[:, None] if value.ndim == 2 else value
