"""What a treatment is made of: steps with their numbers, between a tap and a descriptor."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import Tap

Number = int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class TreatmentSpec:
    """Description of a step of treatments, as plugins register it.

    Args:
        name: what the user types: lower-case letters, digits, `-` and `_`.
        apply: maps a tap to a tap. It is called with the tap and the numbers in the parentheses;
            its defaults are those of the step. A keyword-only parameter `channels` receives the
            massive channels, and one called `learned` what `learn` returned.
        learn: computes, from the tap of a blank image before this step and the numbers, a tensor
            that is cached per weights, block, timestep and grid; None where nothing is learned.
        check: raises InvalidArgumentError for numbers that are out of range.
        cost: floating-point operations per value of x, or a function that returns them from the
            width D and the numbers.
        source: where the step comes from.

    Raises:
        InvalidArgumentError: the name is malformed, or a function is not callable.

    Example:
        >>> from dataclasses import replace
        >>> from kornia_ditf import apply_treatment, parse_treatment
        >>> def halve(tap: Tap) -> Tap:
        ...     return replace(tap, x=tap.x / 2)
        >>> spec = TreatmentSpec(name="halve", apply=halve, cost=1, source="an example")
        >>> tap = Tap(torch.ones(1, 4, 8), None, None, (2, 2))
        >>> apply_treatment(tap, parse_treatment("halve > halve", [spec])).unique()
        tensor([0.2500])
    """

    name: str
    apply: Callable[..., Tap]
    learn: Callable[..., Tensor] | None = None
    check: Callable[..., None] | None = None
    cost: float | Callable[..., float]
    source: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*", self.name):
            raise InvalidArgumentError(
                "the name of a treatment must be of lower-case letters, digits, - and _, "
                f"got {self.name!r}"
            )
        for function in (self.apply, self.learn, self.check):
            if function is not None and not callable(function):
                raise InvalidArgumentError(
                    f"apply, learn and check of the treatment {self.name!r} must be functions, "
                    f"got {function!r}"
                )


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a treatment with its numbers: `debias(0.99)`."""

    spec: TreatmentSpec
    numbers: tuple[Number, ...] = ()

    def __str__(self) -> str:
        numbers = ", ".join(f"{number:g}" for number in self.numbers)
        return f"{self.spec.name}({numbers})" if numbers else self.spec.name

    def wants(self, name: str) -> bool:
        """Whether the step's function has a keyword-only parameter of this name."""
        parameter = inspect.signature(self.spec.apply).parameters.get(name)
        return parameter is not None and parameter.kind is parameter.KEYWORD_ONLY

    def __call__(self, tap: Tap, channels: Sequence[int] | Tensor, learned: Tensor | None) -> Tap:
        return self.spec.apply(tap, *self.numbers, **self.options(tap, channels, learned))

    def options(
        self, tap: Tap, channels: Sequence[int] | Tensor, learned: Tensor | None
    ) -> dict[str, Any]:
        """Return what the step's function takes besides the tap and the numbers.

        Raises:
            InvalidArgumentError: the step learns, and `learned` is None.
        """
        options: dict[str, Any] = {"channels": channels} if self.wants("channels") else {}
        if self.wants("learned"):
            if learned is None:
                raise InvalidArgumentError(
                    f"{self} learns from a blank image: describe images with a DiTF, or give "
                    "what learn_from_blank returned as learned=..."
                )
            options["learned"] = learned.to(tap.x)
        return options


class Treatment(str):
    """A sequence of steps, as its text and the functions that it names."""

    steps: tuple[Step, ...] = ()

    @property
    def discards(self) -> bool:
        """Whether a step asks for the massive channels."""
        return any(step.wants("channels") for step in self.steps)

    @property
    def modulates(self) -> bool:
        """Whether the block's own shift and scale are applied."""
        return any(step.spec.name == "adaln" for step in self.steps)

    @property
    def learns(self) -> bool:
        """Whether a step learns from a blank image, which takes one more forward per grid."""
        return any(step.spec.learn is not None for step in self.steps)

    def cost(self, width: int) -> float:
        """Return the floating-point operations per value of x, for tokens of D = `width`."""
        costs = [(step.spec.cost, step.numbers) for step in self.steps]
        return math.fsum(c(width, *numbers) if callable(c) else c for c, numbers in costs)
