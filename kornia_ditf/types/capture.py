"""What goes into a transformer besides the image, and what is captured at a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.text import short_repr


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Inputs of a transformer besides latent and timestep, one row per image.

    Args:
        tensors: named tensors, each with a first axis of 1 (shared by all images) or B.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    __repr__ = short_repr

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def expand(self, batch: int) -> Conditioning:
        """Repeat shared rows, so that every tensor has `batch` rows.

        Raises:
            InvalidArgumentError: a tensor has neither 1 nor a divisor of `batch` rows.
        """
        return Conditioning(
            {name: _expand_rows(name, value, batch) for name, value in self.tensors.items()}
        )

    def rows(self, start: int, stop: int) -> Conditioning:
        """Take the rows of some of the images."""
        return Conditioning({name: value[start:stop] for name, value in self.tensors.items()})

    def to(self, device: torch.device, dtype: torch.dtype) -> Conditioning:
        """Move to a device; floating-point tensors take the dtype."""
        return Conditioning(
            {
                name: value.to(device, dtype if value.is_floating_point() else None)
                for name, value in self.tensors.items()
            }
        )


def _expand_rows(name: str, value: Tensor, batch: int) -> Tensor:
    rows = value.shape[0]
    if rows == 0 or batch % rows:
        raise InvalidArgumentError(
            f"conditioning {name!r} has {rows} rows, which do not fit {batch} images: pass one "
            "prompt, or one per image"
        )
    # Image-major, as the ensemble is: rows [a, b] for 4 become [a, a, b, b].
    return value.repeat_interleave(batch // rows, dim=0)


@dataclass(frozen=True, slots=True, eq=False)
class TokenNorm:
    """The normalisation of a block's first AdaLN, as the block itself has it.

    Args:
        kind: "layer" (mean and variance) or "rms" (root mean square only).
        eps: the block's own epsilon.
        weight: the affine weight (D,), where the family has one.
        bias: the affine bias (D,), where the family has one.
    """

    kind: Literal["layer", "rms"] = "layer"
    eps: float = 1e-6
    weight: Tensor | None = None
    bias: Tensor | None = None

    __repr__ = short_repr

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise each token of x, shape (..., D), over its channels."""
        shape = x.shape[-1:]
        # Tokens may have been averaged in float32 where the block's weights are in bfloat16.
        weight = None if self.weight is None else self.weight.to(x)
        bias = None if self.bias is None else self.bias.to(x)
        if self.kind == "layer":
            return F.layer_norm(x, shape, weight, bias, self.eps)
        return F.rms_norm(x, shape, weight, self.eps)


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """A block's input, with the shift and scale that the block applies to it.

    Args:
        x: the image tokens at the block's first normalisation, shape (B, N, D).
        shift: added after scaling, shape (B, D) or (B, N, D); None where the family has none.
        scale: applied as 1 + scale, same shapes; None where the family has none.
        grid: rows and columns of the tokens; N = rows * columns.
        norm: the block's own normalisation.
    """

    x: Tensor
    shift: Tensor | None
    scale: Tensor | None
    grid: tuple[int, int]
    norm: TokenNorm = field(default_factory=TokenNorm)

    __repr__ = short_repr

    def mean(self, ensemble: int) -> Tap:
        """Average each image's consecutive noise draws: (B * ensemble, ...) -> (B, ...), float32.

        DiTF averages x, shift and scale before it normalises; the order does not commute.
        """
        return self._map(lambda v: v.float().reshape(-1, ensemble, *v.shape[1:]).mean(1))

    def __add__(self, other: Tap) -> Tap:
        return Tap._combine([self, other], lambda values: values[0] + values[1])

    def __mul__(self, factor: float) -> Tap:
        return self._map(lambda value: value * factor)

    @staticmethod
    def cat(taps: Sequence[Tap]) -> Tap:
        """Join the images of several taps of one block."""
        return taps[0] if len(taps) == 1 else Tap._combine(taps, torch.cat)

    def take(self, index: Tensor) -> Tap:
        """Take some of the images, in any order and as often as they are named."""
        return self._map(lambda value: value[index.to(value.device)])

    def rows(self) -> list[Tap]:
        """Split into one tap per image."""
        return [self._map(itemgetter(slice(row, row + 1))) for row in range(len(self.x))]

    def _map(self, function: Callable[[Tensor], Tensor]) -> Tap:
        return Tap._combine([self], lambda values: function(values[0]))

    @staticmethod
    def _combine(taps: Sequence[Tap], function: Callable[[list[Tensor]], Tensor]) -> Tap:
        combined: dict[str, Any] = {}
        for name in ("x", "shift", "scale"):
            values = [getattr(tap, name) for tap in taps]
            combined[name] = None if values[0] is None else function(values)
        return replace(taps[0], **combined)
