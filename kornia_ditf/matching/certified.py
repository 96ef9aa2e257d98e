"""Descriptors in; their cosines from a fast product out, and how far these can be from the truth.

A product of short numbers is several times faster than one in float32, on processors that have
instructions for it. Its result is wrong by little, and by how much at most can be told beforehand.

Let u and v be two true unit vectors, x and y the short ones that are multiplied in their place, and
e >= |u - x|, f >= |v - y| the lengths of their rounding errors, which are measured. Then

    |u.v - x.y| = |(u - x).v + x.(v - y)| <= e + (1 + e) f                      (Cauchy-Schwarz)

and the computed product differs from x.y by its own rounding, relative to |x||y| <= (1 + e)(1 + f):

    float32    at most D * 2^-24 in sums of D terms, in whatever order, since each of at most D
               roundings changes its partial sum of |x_i y_i| by 2^-24 of it
    bfloat16   the same, for products of bfloat16 numbers are exact in float32 and summed there;
               and 2^-9 where the result is rounded to bfloat16

Together this is `bound`. Whatever it leaves open is decided in float64 (see `nearest`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError

Precision = Literal["auto", "float32", "bfloat16"]

_PIECE = 64
"""So many vectors are shortened at one time."""

_SLACK = 2.0**-22
"""Covers unit vectors that were themselves rounded, and the comparisons with a bound."""


@dataclass(frozen=True, slots=True, eq=False)
class Short:
    """Vectors to multiply in place of unit vectors; see `shorten`.

    Args:
        factors: shape (N, D), float32 or bfloat16.
        errors: bounds of their distances to the true unit vectors, shape (N,), float32.
    """

    factors: Tensor
    errors: Tensor


def shorten(descriptors: Tensor, lengths: Tensor, precision: Precision) -> Short:
    """Round vectors to so many digits at unit length, and measure what that changes.

    Args:
        descriptors: shape (N, D), none of them zero.
        lengths: theirs, shape (N,), float64.
        precision: which digits; not `auto`.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    factors = torch.empty(descriptors.shape, dtype=dtype, device=descriptors.device)
    errors = torch.zeros(len(descriptors), device=descriptors.device)
    # On CPUs in pieces, which stay in the cache and leave no holes between what is kept.
    piece = _PIECE if descriptors.device.type == "cpu" else max(1, len(descriptors))
    for start in range(0, len(descriptors), piece):
        part = slice(start, start + piece)
        units = descriptors[part].float() / lengths[part, None].float()
        factors[part] = units
        if precision == "bfloat16":
            errors[part] = torch.linalg.vector_norm(units.sub_(factors[part]), dim=1)
    # The measured length is rounded too.
    return Short(factors, errors * (1 + 2.0**-9) + _SLACK)


def multiply(a: Short, b: Short) -> Tensor:
    """Give cosines up to `bound`, float32, shape (N, M)."""
    return (a.factors @ b.factors.T).float()


def bound(of: Short, against: Short) -> Tensor:
    """Bound, for each of some vectors, the error of all its cosines with others, shape (N,)."""
    most = against.errors.amax()
    rounding = of.factors.shape[1] * 2.0**-24
    if of.factors.dtype == torch.bfloat16:
        rounding += 2.0**-9
    # (1 + 2^-6) is for products of small terms that were left out.
    product = (1 + of.errors) * (1 + most) * rounding * (1 + 2.0**-6)
    return of.errors + (1 + of.errors) * most + product + _SLACK


def choose_precision(precision: Precision, size: int, device: torch.device) -> Precision:
    """Settle on a precision; `auto` is the one that is fastest here.

    Args:
        precision: as it was asked for.
        size: N * M * D of the product.
        device: where it is computed.

    Raises:
        InvalidArgumentError: no such precision.
    """
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise InvalidArgumentError(f"precision must be one of {known}, got {precision!r}")
    if precision != "auto":
        return precision
    # Below, everything takes milliseconds, the measurement too.
    return "float32" if size < 2**30 else _fastest(device)


@cache
def _fastest(device: torch.device) -> Precision:
    """Measure which precision multiplies fastest, once per process and device."""
    vectors = torch.ones(1024, 512, device=device)
    lengths = torch.full((1024,), 512**0.5, dtype=torch.float64, device=device)

    def duration(precision: Precision) -> float:
        short = shorten(vectors, lengths, precision)
        return min(_time(lambda: multiply(short, short), device) for _ in range(4))

    # Short numbers leave more to be decided afterwards, so they must be worth it.
    return "bfloat16" if duration("bfloat16") < 0.75 * duration("float32") else "float32"


def _time(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
