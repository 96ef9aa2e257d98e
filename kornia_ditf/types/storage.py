"""Descriptors as files hold them: float32, float16, or int8 with a scale per token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.checks import check_one_of

STORES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}
"""The dtypes that descriptors are stored in, by name."""

_SCALE = "_scale"


def encode(
    tensors: Mapping[str, Tensor], store: str, *, of: str = "the descriptors"
) -> dict[str, Tensor]:
    """Convert descriptors to the tensors of a file; `decode` restores them.

    Args:
        tensors: descriptors by name, each of shape (..., D, rows, columns).
        store: `float32`, `float16`, or `int8`, which divides each token by a scale of its own, its
            largest magnitude / 127, and rounds.
        of: what error messages call the descriptors.

    Returns:
        contiguous tensors on the CPU, by name; with `int8` also the scales, `NAME_scale`, float32,
        of shape (..., 1, rows, columns).

    Raises:
        InvalidArgumentError: there is no such format, or a value is not finite in it.

    Example:
        >>> stored = encode({"descriptors": torch.tensor([0.5, -2.54]).view(2, 1, 1)}, "int8")
        >>> stored["descriptors"].flatten(), stored["descriptors_scale"].flatten()
        (tensor([  25, -127], dtype=torch.int8), tensor([0.0200]))
    """
    check_one_of("store", store, STORES)
    encoded = {}
    for name, data in tensors.items():
        values = data.detach().cpu().contiguous()
        if store == "int8":
            values = values.float()
            scale = values.abs().amax(-3, keepdim=True) / 127
            encoded[name + _SCALE] = scale
            divisor = scale.clamp_min(torch.finfo(torch.float32).tiny)
            encoded[name] = (values / divisor).round_().clamp_(-127, 127).to(torch.int8)
        else:
            encoded[name] = scale = values.to(STORES[store])
        if not bool(torch.isfinite(scale).all()):
            known = bool(torch.isfinite(values).all())
            advice = "store float32 or int8" if known else "they hold NaN or infinity"
            raise InvalidArgumentError(f"{of} cannot be stored as {store}: {advice}")
    return encoded


def decode(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Restore what `encode` made: int8 as float32, other dtypes as they are.

    Raises:
        KeyError: int8 descriptors without their scales.
    """
    decoded = {}
    for name, data in tensors.items():
        if data.dtype == torch.int8:
            decoded[name] = data * tensors[name + _SCALE]
        elif tensors.get(name.removesuffix(_SCALE), data).dtype != torch.int8:
            decoded[name] = data
    return decoded
