"""Running models of other libraries apart from other threads and from the caller's settings."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch

from kornia_ditf.errors import DiTFError

_locks: WeakKeyDictionary[object, threading.RLock] = WeakKeyDictionary()
_locks_guard = threading.Lock()


def lock_of(owner: object) -> threading.RLock:
    """Return the lock of an object, the same one at every call.

    It is kept beside the object and not in it, so that the object can be copied and pickled.
    """
    with _locks_guard:
        return _locks.setdefault(owner, threading.RLock())


class SharedSetting:
    """A setting of the whole process that several threads hold at one time.

    The first thread to enter changes it and the last to leave restores it. A thread that wants
    another value waits until nobody holds this one. If it holds a value itself, it gives that up
    for the inner block and takes it again afterwards, so no two threads wait for each other.

    Args:
        change: returns a context manager that changes the setting and restores it; this class
            decorates such a function.

    Example:
        >>> with default_dtype(torch.float64):
        ...     torch.zeros(1).dtype
        torch.float64
    """

    def __init__(self, change: Callable[..., AbstractContextManager[object]]) -> None:
        self._change = change
        self._condition = threading.Condition()
        self._holders, self._value, self._undo = 0, (), ExitStack()
        self._held = threading.local()

    @contextmanager
    def __call__(self, *value: Any) -> Iterator[None]:
        """Hold the setting at a value, the arguments of `change`."""
        outer = getattr(self._held, "value", None)
        if outer == value:
            yield
            return
        if outer is not None:
            self._release()
        try:
            self._hold(value)
            try:
                yield
            finally:
                self._release()
        finally:
            if outer is not None:
                self._hold(outer)

    def _hold(self, value: tuple[Any, ...]) -> None:
        with self._condition:
            self._condition.wait_for(lambda: not self._holders or self._value == value)
            if not self._holders:
                self._undo.enter_context(self._change(*value))
                self._value = value
            self._holders += 1
        self._held.value = value

    def _release(self) -> None:
        self._held.value = None
        with self._condition:
            self._holders -= 1
            if not self._holders:
                self._undo.close()
                self._condition.notify_all()


@SharedSetting
@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Hold torch's default dtype, which is one for all threads."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


_building = threading.RLock()


@contextmanager
def building(dtype: torch.dtype) -> Iterator[None]:
    """Build and load a model of another library, which changes torch for all threads meanwhile.

    transformers sets the default dtype, and accelerate and diffusers let new parameters have no
    values: no other thread may build or run a model under either.

    Args:
        dtype: of the model.
    """
    with default_dtype(dtype), _building:
        yield


@SharedSetting
@contextmanager
def quiet(category: type[Warning]) -> Iterator[None]:
    """Silence warnings of a category; `warnings.catch_warnings` alone mixes threads up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


@contextmanager
def isolated(model: object) -> Iterator[None]:
    """Run a model's own code for one thread at a time, in the precision of its weights.

    What hooks and caches a model holds belongs to the thread that runs it. A default dtype other
    than float32, a default device and autocast would change its numbers, though the dtype of the
    weights is what the caller chose and what caches of descriptors name.

    Args:
        model: what runs; whoever shares it waits.
    """
    with lock_of(model), default_dtype(torch.float32), ExitStack() as settings:
        for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda", "mps", "xpu")):
            settings.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        yield


@contextmanager
def translated(kind: type[DiTFError], told: str, advice: str = "") -> Iterator[None]:
    """Run code of another library, whose errors come from deep inside, and say what it was for.

    Args:
        kind: the error that is raised in place of its errors.
        told: what failed, which the message begins with; then come the error's kind and text.
        advice: how the message ends.
    """
    try:
        yield
    except (DiTFError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise kind(f"{told}: {type(error).__name__}: {error}{advice}") from error


P = ParamSpec("P")
R = TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that torch.compile runs as it is; hooks exist in Python alone."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # To decorate at once would import the compiler, which takes seconds.
        if torch.compiler.is_dynamo_compiling():
            compiler: Any = torch.compiler
            result: R = compiler.disable(function)(*args, **kwargs)
            return result
        return function(*args, **kwargs)

    return call
