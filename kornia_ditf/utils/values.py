"""Checks of tensors' values that do not make the host wait for a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from kornia_ditf.errors import DiTFError


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A condition on values that may still be computed, and the error where it does not hold.

    Args:
        holds: the condition, bool, shape ().
        error: makes the error; it may read values. None is no error, as where it only warned.
    """

    holds: Tensor
    error: Callable[[], DiTFError | None]


_waiting: ContextVar[list[Check] | None] = ContextVar("waiting", default=None)
_skipped = ContextVar("skipped", default=False)


def require(holds: Tensor, error: Callable[[], DiTFError | None]) -> None:
    """Raise an error unless a condition holds.

    Inside `deferred_checks` the condition of an accelerator's values is kept and not read.

    Args:
        holds: the condition, bool, shape ().
        error: makes the error; see `Check`.
    """
    waiting = _waiting.get()
    if not values_are_checked():
        return
    if waiting is None or is_host(holds.device):
        raise_failed([Check(holds, error)])
    else:
        waiting.append(Check(holds, error))


def raise_failed(checks: Sequence[Check]) -> None:
    """Raise the error of the first check that fails; all conditions are read in one go."""
    if checks:
        device = checks[0].holds.device
        held = torch.stack([check.holds.to(device) for check in checks]).cpu().numpy()
        for check, holds in zip(checks, held, strict=True):
            if not holds and (error := check.error()) is not None:
                raise error


def settle_checks() -> None:
    """Raise what the checks kept so far find, before values are read for another reason."""
    raise_failed(_waiting.get() or [])


@contextmanager
def deferred_checks() -> Iterator[list[Check]]:
    """Collect the checks of an accelerator's values; nested, the outermost collects them all."""
    outer = _waiting.get()
    if outer is not None:
        yield []
        return
    checks: list[Check] = []
    token = _waiting.set(checks)
    try:
        yield checks
    finally:
        _waiting.reset(token)


def is_host(device: torch.device) -> bool:
    """Whether values of a device can be read without waiting for it."""
    return device.type == "cpu"


@contextmanager
def unchecked_values() -> Iterator[None]:
    """Leave values unchecked: a graph that is being traced has none yet."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def values_are_checked() -> bool:
    """Whether values are checked: outside `unchecked_values` they are."""
    return not _skipped.get()
