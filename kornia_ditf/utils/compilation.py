"""Modules compiled in place, with a way back where compilation fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import nn

from kornia_ditf.errors import CompilationWarning, DiTFError

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


class CompiledModules:
    """Compile modules in place, when they first run, and run them as they are if that fails.

    Args:
        modules: what to compile, each by itself.
        backend: of `torch.compile`; the default one keeps what it compiles on disk between runs.
    """

    def __init__(self, modules: Sequence[nn.Module], backend: str = "inductor") -> None:
        self.modules, self.backend = list(modules), backend
        self._functions: dict[Any, Any] = {}
        for module in self.modules:
            module.compile(backend=backend)

    def function(self, plain: Function) -> Function:
        """Return a function compiled as the modules are; as it is where none is compiled."""
        if not self.modules:
            return plain
        if plain not in self._functions:
            self._functions[plain] = torch.compile(plain, backend=self.backend)
        fast = self._functions[plain]

        def call(*arguments: Any) -> Any:
            return self.run(lambda: (fast if self.modules else plain)(*arguments))

        return cast(Function, call)

    def run(self, forward: Callable[[], Result]) -> Result:
        """Call a forward that runs the modules, and again without compilation if it fails.

        Warns:
            CompilationWarning: compilation failed, which is said once.
        """
        try:
            return forward()
        except (DiTFError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of the compiler, the C++ compiler it calls, or the model
            if not self.modules:
                raise
            for module in self.modules:
                module._compiled_call_impl = None
            self.modules.clear()
            result = forward()
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            warnings.warn(
                f"compile=True failed, so the model runs as it is ({reason})",
                CompilationWarning,
                stacklevel=2,
            )
            return result
