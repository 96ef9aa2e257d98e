"""An error in, one line and an exit code out; a bug keeps its traceback."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from kornia_ditf.errors import (
    CheckpointError,
    DatasetError,
    DiTFError,
    HubError,
    ImageError,
    InvalidArgumentError,
    OutputError,
    PluginWarning,
    UnknownBackboneError,
)
from kornia_ditf.utils.text import printable

INCOMPLETE = 6
INTERRUPTED = 130
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
  1    failed for another reason; a traceback is a bug
  2    a wrong command, option or value
  3    an image cannot be read or used
  4    a backbone or its weights cannot be had
  5    a result cannot be written
  6    a data set is incomplete, damaged or of another layout
  130  interrupted
"""


class CommandGroup(TyperGroup):
    """The commands; an error of ours becomes one line on standard error.

    Plugins are asked for commands when all are listed, or one is asked for that is not built in.
    """

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

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with showing_plugin_warnings():
                return super().invoke(ctx)
        except DiTFError as error:
            raise fail(str(error), exit_code(error)) from error
        except KeyboardInterrupt as interrupt:
            raise fail("interrupted", INTERRUPTED) from interrupt
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            advice = "try a smaller --long-side, --rows 1, or --dtype bfloat16"
            raise fail(f"the device's memory does not suffice; {advice}", 1) from error


@contextmanager
def showing_plugin_warnings() -> Iterator[None]:
    """Show warnings about plugins, in one line each, and no others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", PluginWarning)
        warnings.showwarning = _show_warning
        yield


def fail(message: str, code: int) -> typer.Exit:
    """Say in one line what is wrong; gives the exception that ends the command."""
    say_error(message)
    return typer.Exit(code)


def say_error(message: str) -> None:
    """Write `error: ...` on standard error, as one line."""
    _say("error", message)


def say_warning(message: str) -> None:
    """Write `warning: ...` on standard error, as one line."""
    _say("warning", message)


def exit_code(error: DiTFError) -> int:
    """Choose the exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def _say(kind: str, message: str) -> None:
    # Messages may quote other libraries, which write several lines.
    typer.echo(f"{kind}: {printable(' '.join(message.split()))}", err=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say_warning(str(message))


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
