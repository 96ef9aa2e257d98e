"""Applying rules to a backbone or descriptor, and what rules are written with.

A rule is a function of the subject. Its name is the rule's; the first line of its docstring says
what must hold. It raises `Broken`, with what was seen and what to do about it, where that does not
hold, and `NotApplicable` where the subject has nothing to which it could apply.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from unittest.mock import patch
from zlib import crc32

import torch
from torch import Tensor, nn

from kornia_ditf.errors import ConformanceError, DiTFError, InvalidArgumentError
from kornia_ditf.utils.checks import no_such

Subject = TypeVar("Subject")


class Broken(Exception):
    """A rule does not hold.

    Args:
        seen: what was seen.
        advice: what to do about it.
    """

    def __init__(self, seen: str, advice: str) -> None:
        super().__init__(seen, advice)
        self.seen, self.advice = seen, advice


class NotApplicable(Exception):
    """A rule has nothing here to which it could apply."""


def expect(holds: bool, seen: str, advice: str) -> None:
    """Raise `Broken` unless something holds."""
    if not holds:
        raise Broken(seen, advice)


def check_rules(
    what: str,
    subject: Subject,
    rules: Sequence[Callable[[Subject], None]],
    names: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Apply rules, all of them, to a subject.

    Args:
        what: the subject in words.
        subject: what the rules are applied to.
        rules: all that there are.
        names: those to apply; None applies all.

    Returns:
        the names of the rules that hold; those that do not apply are left out.

    Raises:
        ConformanceError: rules are broken; it names each, what was seen and what to do.
        InvalidArgumentError: there is no rule of a name.
    """
    known = {rule.__name__: rule for rule in rules}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise InvalidArgumentError(no_such("rule", unknown[0], known))
    chosen = list(known) if names is None else list(names)
    held, failures = [], []
    causes: dict[str, str] = {}
    with torch.no_grad():
        for name in chosen:
            try:
                known[name](subject)
            except NotApplicable:
                continue
            except Broken as broken:
                failures.append(_describe(known[name], broken.seen, broken.advice))
            except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
                seen = _where(error)
                first = causes.setdefault(seen, name)
                seen = seen if first == name else f"the same error as in {first}"
                failures.append(_describe(known[name], seen, "see the line named there"))
            else:
                held.append(name)
    if failures:
        raise ConformanceError(
            f"{what} breaks {len(failures)} of {len(chosen)} rules:\n" + "\n".join(failures)
        )
    return tuple(held)


def _describe(rule: Callable[[Subject], None], seen: str, advice: str) -> str:
    claim = (rule.__doc__ or "").splitlines()[0]
    return f"  {rule.__name__}: {claim}\n    seen: {seen}\n    do: {advice}"


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"


def expect_refusal(
    what: str, function: Callable[..., object], *arguments: object, **options: object
) -> None:
    """Expect that a call raises one of our errors; another one, or none, breaks the rule."""
    advice = (
        "raise kornia_ditf.errors.InvalidArgumentError (or another DiTFError) early, with the "
        "value and what was expected"
    )
    try:
        function(*arguments, **options)
    except DiTFError:
        return
    except Exception as error:
        raise Broken(f"{what} raised {_where(error)}", advice) from error
    raise Broken(f"{what} was accepted", advice)


def expect_close(
    found: Tensor, expected: Tensor, what: str, advice: str, *, tolerance: float = 0.0
) -> None:
    """Expect the length of the difference to be within a fraction of the length of the whole."""
    if found.shape != expected.shape:
        raise Broken(f"{what}: shape {tuple(found.shape)}, not {tuple(expected.shape)}", advice)
    difference = float((found.double() - expected.double()).norm())
    limit = tolerance * float(expected.double().norm())
    if not difference <= limit:  # NaN is not
        raise Broken(f"{what}: they differ by {difference:.3g}, at most {limit:.3g}", advice)


@contextmanager
def shared_noise() -> Iterator[None]:
    """Draw the same noise for all images, so that descriptors differ by the images alone."""

    def seed(image: Tensor, salt: str) -> int:
        return crc32(salt.encode())

    with patch("kornia_ditf.noise._image_seed", seed):
        yield


def rounding(dtype: torch.dtype) -> float:
    """Return the fraction by which rounding alone may move features of a dtype."""
    return 1e-4 if dtype == torch.float32 else 0.05


@contextmanager
def left_as_it_was(module: nn.Module) -> Iterator[None]:
    """Expect that what runs inside changes nothing of a module, nor of torch's global state."""
    before = {**_state(module), **_surroundings()}
    yield
    after = {**_state(module), **_surroundings()}
    changed = [name for name, value in before.items() if after[name] != value]
    expect(
        not changed,
        f"changed: {', '.join(changed)}",
        "remove every hook in a finally or an ExitStack, draw from a torch.Generator of your own, "
        "and leave modes, weights and forwards alone",
    )


def _state(module: nn.Module) -> dict[str, object]:
    modules = list(module.modules())
    return {
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules],
        "replaced forwards": ["forward" in vars(m) for m in modules],
        "modes": [m.training for m in modules],
        "gradients asked for": [p.requires_grad for p in module.parameters()],
        "dtypes": [p.dtype for p in module.parameters()],
        "weights": [float(p.double().sum()) for p in module.parameters()],
    }


def _surroundings() -> dict[str, object]:
    return {
        "torch's own random state": torch.get_rng_state().tolist(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
    }
