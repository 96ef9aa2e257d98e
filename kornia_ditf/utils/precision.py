"""The widest floating-point dtype that a device has."""

from __future__ import annotations

import torch
from torch import Tensor


def widest_dtype(device: torch.device) -> torch.dtype:
    """Return float64 where a device is known to have it, else float32.

    Apple's GPUs (`mps`) and some of Intel's have none.
    """
    return torch.float64 if device.type in ("cpu", "cuda", "meta") else torch.float32


def widen(values: Tensor) -> Tensor:
    """Return values in the widest dtype of their device, whatever theirs was."""
    return values.to(widest_dtype(values.device))
