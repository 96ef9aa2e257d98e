"""Computing in the widest floating-point dtype that a device has."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(values: Tensor) -> Tensor:
    """Return values in float64 where their device is known to have it, else in float32.

    Apple's GPUs (`mps`) and some of Intel's have none.
    """
    wide = values.device.type in ("cpu", "cuda", "meta")
    return values.to(torch.float64 if wide else torch.float32)
