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
    int8       nothing in the sums, which are exact in int32 up to D = 130,000; 3 * 2^-24 for the
               conversion to float32 and the two scales

Together this is `bound`. Whatever it leaves open is decided in float64 (see `nearest`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError

Precision = Literal["auto", "float32", "bfloat16", "int8"]

_SLACK = 2.0**-22
"""Covers unit vectors that were themselves rounded, and the comparisons with a bound."""


@dataclass(frozen=True, slots=True, eq=False)
class Short:
    """Vectors to multiply in place of unit vectors; see `shorten`.

    Args:
        factors: shape (N, D), float32, bfloat16 or int8.
        scales: what int8 factors are to be multiplied with, shape (N,), float32; else None.
        errors: bounds of the distances to the true unit vectors, shape (N,), float32.
    """

    factors: Tensor
    scales: Tensor | None
    errors: Tensor

    def __getitem__(self, part: slice) -> Short:
        scales = None if self.scales is None else self.scales[part]
        return Short(self.factors[part], scales, self.errors[part])


def shorten(descriptors: Tensor, lengths: Tensor, precision: Precision) -> Short:
    """Round vectors to so many digits at unit length, and measure what that changes.

    Args:
        descriptors: shape (N, D), none of them zero.
        lengths: theirs, shape (N,), float64.
        precision: which digits.
    """
    if precision == "int8":
        descriptors = descriptors.float()
        most = torch.maximum(descriptors.amax(1), -descriptors.amin(1))
        exact = descriptors * (127 / most)[:, None]
        whole = exact.round()
        scales = (most / (127 * lengths)).float()
        differences = torch.linalg.vector_norm(exact.sub_(whole), dim=1) * scales
        # Of vectors of one number, torch multiplies the wrong ones.
        factors = (
            F.pad(whole, (0, 1)).to(torch.int8) if whole.shape[1] == 1 else whole.to(torch.int8)
        )
    else:
        exact = descriptors.float() / lengths.float()[:, None]
        if precision == "float32":
            return Short(exact, None, torch.full_like(exact[:, 0], _SLACK))
        factors, scales = exact.bfloat16(), None
        differences = torch.linalg.vector_norm(exact.sub_(factors), dim=1)
    # The measured length is rounded too.
    return Short(factors, scales, differences * (1 + 2.0**-9) + _SLACK)


def multiply(a: Short, b: Short) -> Tensor:
    """Give cosines up to `bound`, float32, shape (N, M)."""
    if a.scales is None or b.scales is None:
        return (a.factors @ b.factors.T).float()
    products = torch._int_mm(a.factors, b.factors.T).float()
    return products.mul_(b.scales).mul_(a.scales[:, None])


def bound(of: Short, against: Short) -> Tensor:
    """Bound, for each of some vectors, the error of all its cosines with others, shape (N,)."""
    most = against.errors.amax()
    width = of.factors.shape[1]
    rounding = {torch.bfloat16: width * 2.0**-24 + 2.0**-9, torch.int8: 3 * 2.0**-24}.get(
        of.factors.dtype, width * 2.0**-24
    )
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
        InvalidArgumentError: no such precision, or not on this device.
    """
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise InvalidArgumentError(f"precision must be one of {known}, got {precision!r}")
    if precision == "int8" and not _multiplies_int8(device):
        raise InvalidArgumentError(
            f"precision 'int8' needs exact products of int8, which {device.type} does not have "
            "here: use 'auto'"
        )
    if precision != "auto":
        return precision
    # Below, everything takes milliseconds, the measurement too.
    return "float32" if size < 2**30 else _fastest(device)


@cache
def _fastest(device: torch.device) -> Precision:
    """Measure which precision multiplies fastest, once per process and device."""
    vectors, lengths = torch.ones(1024, 512, device=device), torch.full((1024,), 512**0.5)
    lengths = lengths.to(vectors.device, torch.float64)

    def duration(precision: Precision) -> float:
        b = shorten(vectors, lengths, precision)
        a = b[:512]
        return min(_time(lambda: multiply(a, b), device) for _ in range(4))

    choices: list[Precision] = ["float32", "bfloat16"]
    if _multiplies_int8(device):
        choices.append("int8")
    durations = {precision: duration(precision) for precision in choices}
    best = min(choices, key=durations.__getitem__)
    # Short numbers leave more to be decided afterwards, so they must be worth it.
    return best if durations[best] < 0.75 * durations["float32"] else "float32"


def _time(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@cache
def _multiplies_int8(device: torch.device) -> bool:
    """Try whether int8 products are exact: without VNNI, sums of two saturate in 16 bits."""
    if device.type != "cpu":
        return False
    signs = torch.ones(32, 256, dtype=torch.int8)
    signs[::2, ::3] = -1
    a, b = 127 * signs, 127 * signs.flip(0)
    try:
        return torch.equal(torch._int_mm(a, b.T), a.int() @ b.int().T)
    except (RuntimeError, AttributeError):
        return False
