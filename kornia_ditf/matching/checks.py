"""What every comparison of descriptors shares: checks of what is compared, and full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.isolation import SharedSetting


def check_tensor(value: object, name: str, shape: str) -> None:
    """Raise InvalidArgumentError unless a value is a tensor with as many axes as `shape` names."""
    if not isinstance(value, Tensor):
        raise InvalidArgumentError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.ndim != len(shape.strip("(),").split(",")):
        raise InvalidArgumentError(f"{name} must have the shape {shape}, got {tuple(value.shape)}")


def check_comparable(a: Tensor, b: Tensor, width_a: int, width_b: int) -> None:
    """Raise InvalidArgumentError unless two descriptors have one width and one device."""
    if width_a != width_b:
        raise InvalidArgumentError(
            f"descriptors of one width are compared, got D = {width_a} and {width_b}: "
            "describe both images with one backbone"
        )
    if a.device != b.device:
        raise InvalidArgumentError(
            f"descriptors on one device are compared, got {a.device} and {b.device}"
        )


def check_finite(values: Tensor, name: str) -> None:
    """Raise InvalidArgumentError unless a tensor is finite, in float32 too."""
    # NaN spreads to both extremes; this is many times faster than asking every value.
    extremes = torch.stack([*torch.aminmax(values)]).float()
    if not bool(torch.isfinite(extremes).all()):
        raise InvalidArgumentError(f"{name} must be finite, got NaN or infinity in it")


def check_one_image(descriptors: DescriptorMap, name: str) -> None:
    """Raise InvalidArgumentError unless a map holds one image."""
    if len(descriptors) != 1:
        raise InvalidArgumentError(
            f"{name} holds {len(descriptors)} images where one is matched: "
            f"choose one by its number, as in {name}[0]"
        )


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute without gradients and autocast, and on CUDA without shortened products."""
    whole = _whole_products() if device.type == "cuda" else nullcontext()
    mixed = torch.is_autocast_enabled(device.type)
    with torch.no_grad(), torch.autocast(device.type, enabled=False) if mixed else whole, whole:
        yield


@SharedSetting
@contextmanager
def _whole_products() -> Iterator[None]:
    flags = torch.backends.cuda.matmul
    names = ("allow_tf32", "allow_bf16_reduced_precision_reduction")
    before = {name: getattr(flags, name) for name in names}
    try:
        for name in names:
            setattr(flags, name, False)
        yield
    finally:
        for name, value in before.items():
            setattr(flags, name, value)
