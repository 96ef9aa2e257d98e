"""Linear layers whose weights are kept in 8 bits, in half of bfloat16's memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORMATS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
"""The formats of weights, by the name of the option `quantize`."""


class EightBitLinear(nn.Module):
    """A linear layer with weights in 8 bits and a scale per output; it computes as before.

    Its weights are restored whenever it runs, in the dtype that they had, so only memory is saved.

    Args:
        layer: the layer to replace.
        dtype: `torch.int8` or `torch.float8_e4m3fn`.

    Example:
        >>> layer, x = nn.Linear(64, 8), torch.ones(1, 64)
        >>> torch.allclose(EightBitLinear(layer, torch.int8)(x), layer(x), atol=0.02)
        True
    """

    stored: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.dtype, self.bias = layer.weight.dtype, layer.bias
        weight = layer.weight.detach().float()
        whole = dtype == torch.int8
        largest = 127.0 if whole else torch.finfo(dtype).max
        scale = weight.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        scale /= largest
        scaled = (weight / scale).clamp_(-largest, largest)
        self.register_buffer("stored", (scaled.round_() if whole else scaled).to(dtype))
        self.register_buffer("scale", scale)

    @property
    def weight(self) -> Tensor:
        """The restored weights, shape (out, in)."""
        return (self.stored.to(torch.float32) * self.scale).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def quantise_linears(modules: Iterable[nn.Module], kind: str) -> None:
    """Replace the linear layers inside modules by ones that keep their weights in 8 bits.

    Args:
        modules: such as a transformer's blocks.
        kind: `int8` or `fp8`.
    """
    for module in modules:
        for owner in list(module.modules()):
            for name, layer in list(owner.named_children()):
                if type(layer) is nn.Linear:
                    setattr(owner, name, EightBitLinear(layer, FORMATS[kind]))
