"""Checks of arguments; errors name the argument, the value and what was expected."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError


def check_integer(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Raise InvalidArgumentError unless a value is an integer in a range, both ends included.

    Example:
        >>> check_integer("ensemble", 0, minimum=1)
        Traceback (most recent call last):
        kornia_ditf.errors.InvalidArgumentError: ensemble must be 1 or more, got 0
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and minimum <= int(value) <= (math.inf if maximum is None else maximum):  # type: ignore[call-overload]
        return
    expected = f"{minimum} or more" if maximum is None else f"in [{minimum}, {maximum}]"
    kind = "" if whole else "an integer, "
    verb = "lie" if maximum is not None and whole else "be"
    raise InvalidArgumentError(f"{name} must {verb} {kind}{expected}, got {value!r}")


def check_number(name: str, value: float, interval: str) -> None:
    """Raise InvalidArgumentError unless a number lies in an interval such as `(0, 1]`.

    Example:
        >>> check_number("ratio", 1.5, "(0, 1]")
        Traceback (most recent call last):
        kornia_ditf.errors.InvalidArgumentError: ratio must lie in (0, 1], got 1.5
        >>> check_number("threshold", -1.0, "(0, inf)")
        Traceback (most recent call last):
        kornia_ditf.errors.InvalidArgumentError: threshold must be above 0, got -1.0
    """
    low, high = _read_interval(interval)
    above = low < value or (interval[0] == "[" and value == low)
    below = value < high or (interval[-1] == "]" and value == high)
    if above and below:
        return
    expected = f"lie in {interval}"
    if high == math.inf:
        expected = f"be {low:g} or more" if interval[0] == "[" else f"be above {low:g}"
    raise InvalidArgumentError(f"{name} must {expected}, got {value!r}")


_read_interval = lru_cache(lambda text: tuple(map(float, text[1:-1].split(","))))


def check_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Raise InvalidArgumentError unless a value is one of those that are known.

    Example:
        >>> check_one_of("facet", "keys", ["token", "key"])
        Traceback (most recent call last):
        kornia_ditf.errors.InvalidArgumentError: facet must be one of token, key, got 'keys'; \
did you mean 'key'?
    """
    if value not in tuple(known):  # which takes values without a hash
        raise InvalidArgumentError(
            f"{name} must be one of {', '.join(known)}, got {value!r}{did_you_mean(value, known)}"
        )


def no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that nothing of a kind has, with the nearest and all known.

    Example:
        >>> no_such("matcher", "shift", ["sift", "orb"])
        "no matcher is named 'shift'; did you mean 'sift'? (known: sift, orb)"
    """
    names = list(known)
    listed = ", ".join(names) or "none"
    return f"no {kind} is named {name!r}{did_you_mean(name, names)} (known: {listed})"


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` with the known name nearest to a mistyped one, or an empty text.

    Example:
        >>> did_you_mean("flux.1-def", ["nano", "flux.1-dev"])
        "; did you mean 'flux.1-dev'?"
    """
    near = nearest(str(value), known)
    return "" if near is None else f"; did you mean {near!r}?"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to a mistyped one, whatever its case; None if none is near.

    Example:
        >>> nearest("flux.1-DVE", ["nano", "FLUX.1-dev"])
        'FLUX.1-dev'
    """
    names = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return names[near[0]] if near else None


def check_timestep(timestep: object) -> None:
    """Raise InvalidArgumentError unless a timestep is a number in [0, 1000]."""
    number = isinstance(timestep, Real) and not isinstance(timestep, bool)
    if not number or not 0 <= float(timestep) <= 1000:  # type: ignore[arg-type]
        raise InvalidArgumentError(
            f"timestep must lie in [0, 1000] (0 is clean, 1000 is pure noise), got {timestep!r}"
        )


def check_tensor(value: object, name: str, shape: str, *, filled: bool = False) -> None:
    """Raise InvalidArgumentError unless a value is a tensor of a shape such as `(B, N, 2)`.

    Axes that are named by letters may have any length; with `filled` any but 0.
    """
    if not isinstance(value, Tensor):
        raise InvalidArgumentError(f"{name} must be a tensor, got {type(value).__name__}")
    count, fixed = _read_shape(shape)
    if (
        value.ndim != count
        or (filled and 0 in value.shape)
        or any(value.shape[axis] != length for axis, length in fixed)
    ):
        raise InvalidArgumentError(f"{name} must have the shape {shape}, got {tuple(value.shape)}")


@lru_cache
def _read_shape(shape: str) -> tuple[int, list[tuple[int, int]]]:
    """Return the number of axes of a shape such as `(B, 3)`, and those of a fixed length."""
    axes = shape.strip("(),").split(", ")
    return len(axes), [(at, int(length)) for at, length in enumerate(axes) if length.isdigit()]


def check_finite(values: Tensor, name: str) -> None:
    """Raise InvalidArgumentError unless a tensor is finite, in float32 too."""
    # NaN spreads to both extremes; this is many times faster than asking every value.
    extremes = torch.stack([*torch.aminmax(values)]).float() if values.numel() else values
    if not bool(torch.isfinite(extremes).all()):
        raise InvalidArgumentError(f"{name} must be finite, got NaN or infinity in it")


def read_dtype(dtype: object) -> torch.dtype:
    """Read a floating-point dtype, or the name of one, such as `bfloat16` or `bf16`.

    Raises:
        InvalidArgumentError: it is none of float32, bfloat16 and float16.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    name = str(dtype).removeprefix("torch.")
    name = short.get(name, name)
    check_one_of("dtype", name if name in known else dtype, known)
    return known[name]


def read_device(device: object) -> torch.device:
    """Read a device, or the name of one, that is present on this machine.

    Raises:
        InvalidArgumentError: there is no such device.
    """
    try:
        try:
            place: torch.device = torch.device(device)  # type: ignore[call-overload]
        except (RuntimeError, TypeError) as error:  # which lists every kind that torch knows
            raise TypeError("expected a name such as 'cpu', 'cuda' or 'cuda:0'") from error
        if place.type == "meta":
            raise TypeError("tensors there have no values")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArgumentError(f"device {device!r} cannot be used: {reason}") from error
    return place


def read_placement(device: object, dtype: torch.dtype | None) -> tuple[torch.device, torch.dtype]:
    """Read where to compute and in which dtype; None is bfloat16, and float32 on a CPU.

    Raises:
        InvalidArgumentError: there is no such device.
    """
    place = read_device(device)
    return place, dtype or (torch.float32 if place.type == "cpu" else torch.bfloat16)


def check_spec(spec: Any, texts: Sequence[str]) -> None:
    """Check that texts of a spec are not empty and that its `load` is callable."""
    for name in texts:
        value = getattr(spec, name)
        if not isinstance(value, str) or not value.strip():
            raise InvalidArgumentError(
                f"{name} of a {type(spec).__name__} must be a text that is not empty, got {value!r}"
            )
    if not callable(spec.load):
        raise InvalidArgumentError(f"load of {spec.name!r} must be callable, got {spec.load!r}")
