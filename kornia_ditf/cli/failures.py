"""Errors as one line and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from kornia_ditf.cli import output
from kornia_ditf.errors import (
    CheckpointError,
    CompilationWarning,
    DatasetError,
    DiTFError,
    HubError,
    ImageError,
    InvalidArgumentError,
    MassiveChannelsWarning,
    OutputError,
    PluginWarning,
    PresetWarning,
    UnknownBackboneError,
)

INCOMPLETE = 6
_CODES: tuple[tuple[type[DiTFError], int], ...] = (
    (ImageError, 3),
    (UnknownBackboneError, 4),
    (CheckpointError, 4),
    (HubError, 4),
    (OutputError, 5),
    (DatasetError, INCOMPLETE),
    (InvalidArgumentError, 2),
)

EXIT_CODES = """\b
Exit codes:
  0    done
  1    failed for another reason, or nobody reads its pipe; a traceback is a bug
  2    a wrong command, option or value
  3    an image cannot be read or used
  4    a backbone or its weights cannot be had
  5    a result cannot be written
  6    a data set is incomplete, damaged or of another layout
  130  interrupted; 129 and 143 where SIGHUP or SIGTERM ended it
"""


class Terminated(KeyboardInterrupt):
    """A signal that asks the process to end; files are cleaned up as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the process as Ctrl-C does, unless they are ignored."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)


class CommandGroup(TyperGroup):
    """The commands; an error of ours becomes one line on standard error.

    Plugins are asked for their commands when all commands are listed, or an unknown one is typed.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, help and usage errors included."""
        try:
            output.check_stdout()
            return super().main(*args, **kwargs)
        except OutputError as error:
            say_error(str(error))
            sys.exit(exit_code(error))
        except OSError as error:
            if error.filename is not None or sys.stdout is None:
                raise
            # Help and version, which are printed before any command runs.
            say_error(f"cannot write standard output ({error.strerror})")
            output.discard_stdout()
            sys.exit(5)

    def list_commands(self, ctx: Any) -> list[str]:
        """List the commands, built-in ones first."""
        self._ask_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a command by its name."""
        if cmd_name not in self.commands:
            self._ask_plugins()
        return super().get_command(ctx, cmd_name)

    def _ask_plugins(self) -> None:
        from kornia_ditf.cli.plugins import commands_of_plugins

        with showing_plugin_warnings():
            self.commands.update(commands_of_plugins())

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the command line, for which typer imports libraries."""
        with saying_interrupted():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with saying_interrupted(), showing_plugin_warnings():
                return super().invoke(ctx)
        except DiTFError as error:
            raise fail(str(error), exit_code(error)) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            advice = "try a smaller --long-side, --rows 1, or --dtype bfloat16"
            raise fail(f"the device is out of memory; {advice}", 1) from error


@contextmanager
def saying_interrupted(more: Callable[[], str] = str) -> Iterator[None]:
    """End the command in one line on Ctrl-C or a signal, with `more` of what is done by then."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise fail(f"interrupted{more()}", interrupt_code(interrupt)) from interrupt


@contextmanager
def showing_plugin_warnings() -> Iterator[None]:
    """Show warnings about plugins, presets and massive channels in a line each, and no others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", PluginWarning)
        for category in (PresetWarning, MassiveChannelsWarning, CompilationWarning):
            warnings.simplefilter("default", category)
        warnings.showwarning = lambda message, *_, **__: _say("warning", message)
        yield


def fail(message: str, code: int) -> typer.Exit:
    """Print an error in one line, and return the exception that ends the command."""
    say_error(message)
    return typer.Exit(code)


def fail_with(codes: Iterable[int]) -> None:
    """End a command that left something out, with the failures' exit code; 1 if they differ."""
    different = set(codes)
    if different:
        raise typer.Exit(different.pop() if len(different) == 1 else 1)


def say_error(message: str) -> None:
    """Print `error: ...` on standard error, in one line."""
    _say("error", message)


def exit_code(error: DiTFError) -> int:
    """Return the exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def interrupt_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of an interruption: 128 and the signal's number."""
    return 128 + (interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT)


def _say(kind: str, message: object) -> None:
    # Messages may quote other libraries, which write several lines.
    output.echo(f"{kind}: {' '.join(str(message).split())}", error=True)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had too little memory; imports no torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
