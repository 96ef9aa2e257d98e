"""Running a model's own forward under hooks, up to where one of them ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any, TypeAlias

from torch import Tensor, nn

from kornia_ditf.errors import CaptureError
from kornia_ditf.utils.borrowing import aligned, borrowed
from kornia_ditf.utils.isolation import eager, isolated


class StopForward(Exception):
    """Raised by a hook of `run_with_hooks` to end the forward."""


Hook: TypeAlias = tuple[nn.Module, Callable[..., None]]


class _OwnHook:
    """A hook that other threads do not meet, nor whoever runs a copy that they make meanwhile."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function, self.thread = function, get_ident()

    def __call__(self, _: nn.Module, *seen: Any) -> None:
        if get_ident() == self.thread:
            self.function(*seen)

    def __reduce__(self) -> tuple[type[_OwnHook], tuple[Callable[..., None]]]:
        return type(self), (_do_nothing,)


def _do_nothing(*seen: Any) -> None:
    pass


@eager
def run_with_hooks(
    model: nn.Module,
    inputs: Mapping[str, Any],
    *,
    before: Sequence[Hook] = (),
    after: Sequence[Hook] = (),
) -> bool:
    """Run a model's own forward under hooks, which are removed whatever happens.

    Calls from several threads wait for one another. A thread that runs the model by other means,
    such as the diffusers pipeline that it is a part of, does not meet these hooks.

    Args:
        model: what to run.
        inputs: arguments of its forward, by name.
        before: submodules, and what is called with their positional and keyword arguments.
        after: submodules, and what is called with their positional arguments and their output.

    Returns:
        whether a hook ended the forward by raising `StopForward`.
    """
    with isolated(model), borrowed(model), aligned(model), ExitStack() as hooks:
        hooks.enter_context(_uncompiled(model, {module for module, _ in (*before, *after)}))
        for module, function in before:
            handle = module.register_forward_pre_hook(_OwnHook(function), with_kwargs=True)
            hooks.callback(handle.remove)
        for module, function in after:
            hooks.callback(module.register_forward_hook(_OwnHook(function)).remove)
        try:
            getattr(model, "_orig_mod", model)(**inputs)  # what torch.compile has wrapped
        except StopForward:
            return True
    return False


def capture_output(
    model: nn.Module, module: nn.Module, inputs: Mapping[str, Any], *, name: str
) -> Tensor:
    """Run a model's own forward up to the end of a module and return what the module gives.

    Args:
        model: what to run.
        module: one of its submodules; of several outputs the first is returned.
        inputs: arguments of the model's forward, by name.
        name: what an error calls the module.

    Raises:
        CaptureError: the forward never reached it. No hook remains, whatever happens.
    """
    captured: list[Tensor] = []

    def stop(_: Any, output: Any) -> None:
        captured.append(output if isinstance(output, Tensor) else output[0])
        raise StopForward

    if run_with_hooks(model, inputs, after=[(module, stop)]):
        return captured[0]
    raise CaptureError(f"the forward of {type(model).__name__} never reached {name}")


@contextmanager
def _uncompiled(model: nn.Module, hooked: set[nn.Module]) -> Iterator[None]:
    """Let modules that were compiled in place, and would skip these hooks, run as they are."""
    compiled = [
        (module, module._compiled_call_impl)
        for module in model.modules()
        if module._compiled_call_impl is not None and not hooked.isdisjoint(module.modules())
    ]
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call
