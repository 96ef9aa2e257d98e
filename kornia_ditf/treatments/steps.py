"""The steps of treatments that come with the package, as functions of a tap.

Source of the method's own: DiTF, arXiv 2505.18584, table 1; docs/method.md gives the others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.massive import discard_channels
from kornia_ditf.treatments.spec import Number, TreatmentSpec
from kornia_ditf.types import Tap
from kornia_ditf.utils.checks import check_integer


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


def _per_token(value: Tensor) -> Tensor:
    return value[:, None] if value.ndim == 2 else value


def discard(tap: Tap, *, channels: Sequence[int] | Tensor) -> Tap:
    """Zero the massive channels."""
    return discard_channels(tap, channels)


def adaln(tap: Tap) -> Tap:
    """Normalise and modulate; what follows sees no modulation any more."""
    return replace(tap, x=modulate(tap), shift=None, scale=None)


def layernorm(tap: Tap) -> Tap:
    """Normalise with the block's own normalisation, and leave the modulation out."""
    return replace(tap, x=tap.norm(tap.x), shift=None, scale=None)


def smooth(tap: Tap, strength: float) -> Tap:
    """Divide each channel by the power `strength` of its largest magnitude among the tokens.

    With 0 nothing changes; with 1 all channels reach equally far. It replaces the discard where
    massive channels should be levelled and not lost.

    Example:
        >>> tap = Tap(torch.tensor([[[1.0, 100.0], [2.0, 50.0]]]), None, None, (1, 2))
        >>> smooth(tap, 1.0).x
        tensor([[[0.5000, 1.0000],
                 [1.0000, 0.5000]]])
    """
    tiny = torch.finfo(tap.x.dtype).tiny
    largest = tap.x.abs().amax(1, keepdim=True).clamp_min(tiny)
    return replace(tap, x=tap.x / largest**strength)


def debias(tap: Tap, amount: Number = 0.99, *, learned: Tensor) -> Tap:
    """Project out of every token the first directions of a blank image's tokens.

    Whatever a blank image's tokens hold comes from position and noise alone. The amount is a number
    of directions, or, below 1, the share of the blank image's energy that they hold.
    """
    return replace(tap, x=tap.x - (tap.x @ learned.mT) @ learned)


def blank_directions(blank: Tap, amount: Number = 0.99) -> Tensor:
    """Return the first right singular vectors of a blank image's tokens, shape (rank, D).

    Raises:
        InvalidArgumentError: there are fewer.
    """
    tokens = blank.x.detach().cpu().double().flatten(0, 1)
    sizes: Tensor
    directions: Tensor
    _, sizes, directions = torch.linalg.svd(tokens, full_matrices=False)
    energy = sizes.square().cumsum(0)
    rank = int(amount) if amount >= 1 else 1 + int((energy < amount * energy[-1]).sum())
    if rank >= len(sizes):
        raise InvalidArgumentError(
            f"debias({amount}) takes {rank} directions of {len(sizes)}, and some must remain; give "
            f"{len(sizes) - 1} at most"
        )
    return directions[:rank]


def whiten(tap: Tap, floor: float = 0.01, *, learned: Tensor) -> Tap:
    """Multiply tokens by the inverse square root of the covariance of a blank image's tokens.

    `debias` removes some directions and keeps all others as they are; this shrinks each by how much
    a blank image varies along it.
    """
    return replace(tap, x=tap.x @ learned)


def blank_whitening(blank: Tap, floor: float = 0.01) -> Tensor:
    """Return (C + floor * mean variance)^(-1/2), C the covariance of a blank image's tokens."""
    covariance = torch.cov(blank.x.detach().cpu().double().flatten(0, 1).mT)
    ridge = floor * covariance.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    variances, axes = torch.linalg.eigh(covariance)
    whitening: Tensor = (axes * (variances.clamp_min(0) + ridge).rsqrt()) @ axes.mT
    return whitening


def _check_strength(strength: Number) -> None:
    if not 0 <= strength <= 1:
        raise InvalidArgumentError(
            f"smooth takes a number in [0, 1] (0 changes nothing), got {strength}"
        )


def _check_amount(amount: Number) -> None:
    if not 0 < amount < 1:
        check_integer("the number of debias, where not between 0 and 1,", amount, minimum=1)


def _check_floor(floor: Number) -> None:
    if not floor > 0:
        raise InvalidArgumentError(f"whiten takes a number above 0, got {floor}")


def _debias_cost(width: int, amount: Number) -> float:
    return 4 * (amount if amount >= 1 else width / 2)  # a share of energy takes half at most


STEPS = (
    TreatmentSpec(name="adaln", apply=adaln, cost=9, source="DiTF, arXiv 2505.18584"),
    TreatmentSpec(name="discard", apply=discard, cost=1, source="DiTF, arXiv 2505.18584"),
    TreatmentSpec(name="layernorm", apply=layernorm, cost=7, source="DiTF, arXiv 2505.18584"),
    TreatmentSpec(
        name="smooth",
        apply=smooth,
        check=_check_strength,
        cost=3,
        source="SmoothQuant, arXiv 2211.10438, of activations alone",
    ),
    TreatmentSpec(
        name="debias",
        apply=debias,
        learn=blank_directions,
        check=_check_amount,
        cost=_debias_cost,
        source="published for DINOv3 with a fixed number of 20 directions; see docs/method.md",
    ),
    TreatmentSpec(
        name="whiten",
        apply=whiten,
        learn=blank_whitening,
        check=_check_floor,
        cost=lambda width, floor: 2 * width,
        source="whitening by the covariance within classes, as in Fisher's linear discriminant",
    ),
)
"""The steps that come with the package."""
