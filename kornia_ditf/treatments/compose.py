"""Treatments in one line: reading them, applying them, and learning what their steps need.

`adaln+discard` is the method (DiTF, arXiv 2505.18584); `raw` and the others show the worth of each
step (its table 1). `smooth(0.5) > adaln` and `adaln+discard > debias(0.99)` put several in order.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.treatments.spec import Number, Step, Treatment, TreatmentSpec
from kornia_ditf.treatments.steps import STEPS
from kornia_ditf.types import DescriptorMap, Discarded, Frame, Tap
from kornia_ditf.utils.checks import did_you_mean

Run = Callable[[Tap, Sequence[Any]], Tensor]

_NAMED: Mapping[str, tuple[str, ...]] = {
    "raw": (),
    "adaln+discard": ("discard", "adaln"),
    "discard+layernorm": ("discard", "layernorm"),
}

TREATMENTS = ("raw", "adaln", "adaln+discard", "discard+layernorm")
"""The treatments of the paper's ablation; `parse_treatment` reads others."""


def parse_treatment(text: str, steps: Iterable[TreatmentSpec] = ()) -> Treatment:
    """Parse a treatment: steps in the order in which they run, joined by `>`.

    Args:
        text: `raw` (x as it is), `adaln+discard` (`discard > adaln`), `discard+layernorm`
            (`discard > layernorm`), or a line of steps such as `smooth(0.5) > adaln`.
        steps: those of plugins (`find_treatment` gives the installed ones), beside `STEPS`.

    Raises:
        InvalidArgumentError: there is no such step, or its numbers are wrong.

    Example:
        >>> parse_treatment("adaln+discard>debias")
        'adaln+discard > debias(0.99)'
        >>> [str(step) for step in parse_treatment("adaln+discard > debias(0.99)").steps]
        ['discard', 'adaln', 'debias(0.99)']
    """
    if isinstance(text, Treatment):
        return text
    known = {spec.name: spec for spec in (*STEPS, *steps)}
    names: list[str] = []
    found: list[Step] = []
    for part in (part.strip() for part in str(text).split(">")):
        if part in _NAMED:
            own, name = [Step(known[name]) for name in _NAMED[part]], part
        else:
            own = [_read_step(part, known, text)]
            name = str(own[0])
        names.append(name)
        found += own
    treatment = Treatment(" > ".join(names))
    treatment.steps = tuple(found)
    return treatment


def _read_step(part: str, known: Mapping[str, TreatmentSpec], text: object) -> Step:
    called = re.fullmatch(r"([^\s()]+)\s*(?:\(([^()]*)\))?", part)
    spec = known.get(called[1]) if called else None
    if called is None or spec is None:
        name = called[1] if called else part
        choices = dict.fromkeys((*_NAMED, *known))
        within = "" if name == str(text) else f" in {str(text)!r}"
        raise InvalidArgumentError(
            f"treatment must be one of {', '.join(choices)}, or several joined by >, got "
            f"{name!r}{within}{did_you_mean(name, choices)}"
        )
    parameters = [
        parameter
        for parameter in list(inspect.signature(spec.apply).parameters.values())[1:]
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    written = [each.strip() for each in (called[2] or "").split(",") if each.strip()]
    needed = sum(parameter.default is parameter.empty for parameter in parameters)
    if not needed <= len(written) <= len(parameters):
        usage = ", ".join(parameter.name for parameter in parameters)
        raise InvalidArgumentError(
            f"the treatment {spec.name} takes {len(parameters) or 'no'} numbers, "
            f"{spec.name}({usage}), got {part!r}"
        )
    numbers = [_read_number(each, part) for each in written]
    step = Step(spec, (*numbers, *(each.default for each in parameters[len(written) :])))
    if spec.check is not None:
        spec.check(*step.numbers)
    return step


def _read_number(text: str, part: str) -> Number:
    for read in (int, float):
        with suppress(ValueError):
            if math.isfinite(number := read(text)):
                return number
    raise InvalidArgumentError(f"{part!r} must have numbers in its parentheses, got {text!r}")


def apply_treatment(
    tap: Tap,
    treatment: str,
    channels: Sequence[int] | Tensor = (),
    learned: Mapping[int, Tensor] | None = None,
    *,
    compiled: Callable[[Run], Run] | None = None,
) -> Tensor:
    """Turn a tap into descriptor tokens.

    Args:
        tap: a block's input and its modulation.
        treatment: see `parse_treatment`.
        channels: the massive channels; or those of each image, bool, shape (B, D), for `discard`.
        learned: what `learn_from_blank` returned, for treatments with steps that learn.
        compiled: compiles the function that runs the steps; None runs them one by one.

    Returns:
        tokens, shape (B, N, D).

    Raises:
        InvalidArgumentError: no such treatment, or a channel out of range.
    """
    run = run_steps if compiled is None else compiled(run_steps)
    steps = [
        (step.spec.apply, step.numbers, step.options(tap, channels, (learned or {}).get(index)))
        for index, step in enumerate(parse_treatment(treatment).steps)
    ]
    return run(tap, steps)


def run_steps(tap: Tap, steps: Sequence[Any]) -> Tensor:
    """Run functions, each with its numbers and options, one after another on a tap."""
    for function, numbers, options in steps:
        tap = function(tap, *numbers, **options)
    return tap.x


def describe_tap(
    tap: Tap,
    frame: Frame,
    treatment: str,
    channels: Sequence[int] | Tensor = (),
    discarded: tuple[Discarded, ...] = (),
    learned: Mapping[int, Tensor] | None = None,
    *,
    compiled: Callable[[Run], Run] | None = None,
) -> DescriptorMap:
    """Turn a tap into a descriptor map, the last steps of the chain.

    `frame` is how the image's pixels map onto the model's, and `discarded` what the map says was
    discarded from each image; other arguments and errors are those of `apply_treatment`.
    """
    tokens = apply_treatment(tap, treatment, channels, learned, compiled=compiled)
    data = tokens.transpose(1, 2).reshape(len(tokens), -1, *tap.grid)
    return DescriptorMap(data, frame, discarded)


def learn_from_blank(blank: Tap, treatment: str, channels: Sequence[int] = ()) -> dict[int, Tensor]:
    """Learn what the steps of a treatment need from the tap of a blank image.

    Returns:
        tensors by the steps' positions, float32; empty where no step learns.
    """
    learned: dict[int, Tensor] = {}
    for index, step in enumerate(parse_treatment(treatment).steps):
        if step.spec.learn is not None:
            learned[index] = step.spec.learn(blank, *step.numbers).float()
        blank = step(blank, channels, learned.get(index))
    return learned
