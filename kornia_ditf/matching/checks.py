"""What every comparison of descriptors shares: checks of what is compared, and full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import DescriptorMap, Matches
from kornia_ditf.utils.checks import check_finite, check_tensor
from kornia_ditf.utils.isolation import SharedSetting


def check_comparable(a: Tensor, b: Tensor, axis: int = 1) -> None:
    """Raise InvalidArgumentError unless two descriptors have one width and one device."""
    if a.shape[axis] != b.shape[axis]:
        raise InvalidArgumentError(
            f"descriptors must have the same width, got D = {a.shape[axis]} and {b.shape[axis]}: "
            "describe both images with the same backbone"
        )
    if a.device != b.device:
        raise InvalidArgumentError(
            f"descriptors must be on the same device, got {a.device} and {b.device}"
        )


def check_one_image(descriptors: DescriptorMap, name: str) -> None:
    """Raise InvalidArgumentError unless a map holds one image."""
    if len(descriptors) != 1:
        raise InvalidArgumentError(
            f"{name} holds {len(descriptors)} images, expected one: select one by its index, as "
            f"in {name}[0]"
        )


def check_pair(map_a: DescriptorMap, map_b: DescriptorMap) -> None:
    """Raise InvalidArgumentError unless two maps of one image each can be compared."""
    check_one_image(map_a, "map_a")
    check_one_image(map_b, "map_b")
    check_comparable(map_a.data, map_b.data)


def check_matches(matches: object) -> None:
    """Raise InvalidArgumentError unless matches are of one pair of images, at finite points."""
    if not isinstance(matches, Matches):
        raise InvalidArgumentError(f"matches must be Matches, got {type(matches).__name__}")
    count = len(matches)
    for name in ("points_a", "points_b"):
        check_tensor(getattr(matches, name), f"{name} of one pair", f"({count}, 2)")
        check_finite(getattr(matches, name), name)
    check_tensor(matches.scores, "scores of one pair", f"({count},)")


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Compute without gradients and autocast, and on CUDA without shortened products."""
    if device.type == "cuda" or torch.is_autocast_enabled(device.type):
        return _full_precision(device)
    return torch.no_grad()


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    whole = _whole_products() if device.type == "cuda" else nullcontext()
    with torch.no_grad(), torch.autocast(device.type, enabled=False), whole:
        yield


@SharedSetting
@contextmanager
def _whole_products() -> Iterator[None]:
    flags = torch.backends.cuda.matmul
    # Where the caller set the newer name, which torch has since 2.9, reading the older one raises.
    newer = hasattr(flags, "fp32_precision")
    whole: dict[str, Any] = {"fp32_precision": "ieee"} if newer else {"allow_tf32": False}
    whole["allow_bf16_reduced_precision_reduction"] = False
    before = {name: getattr(flags, name) for name in whole}
    try:
        for name, value in whole.items():
            setattr(flags, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(flags, name, value)
