"""Finding the installed plugins and calling their hooks.

A plugin is an entry point in the group `kornia_ditf`. Each has a pluggy manager of its own, whose
hooks are called in a thread with a time limit, so that a plugin that raises, exits or hangs is left
out alone. This module and the entry modules load no torch.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import islice
from threading import Thread
from typing import Any, Literal

import pluggy

from kornia_ditf.errors import PluginWarning
from kornia_ditf.registry import hookspecs

SELECTION = "KORNIA_DITF_PLUGINS"
SECONDS = "KORNIA_DITF_PLUGIN_SECONDS"

_DEFAULT_SECONDS = 10.0
_MOST_SPECS = 10_000  # a hook that gives more never ends

State = Literal["not asked", "works", "works in part", "left out", "switched off"]


class Plugin:
    """An installed plugin: what it registers, and why it or a part of it is left out.

    Args:
        entry: its entry point.
        wanted: whether the environment lets it load.
    """

    def __init__(self, entry: EntryPoint, *, wanted: bool = True) -> None:
        self.name = entry.name
        distribution = getattr(entry, "dist", None)
        self.distribution = distribution.name if distribution is not None else None
        self.version = distribution.version if distribution is not None else None
        self.reasons: list[str] = [] if wanted else [f"{SELECTION} does not name it"]
        self.hooks: tuple[str, ...] = ()
        self.registered: list[str] = []
        self.api: object = None
        self.seconds = 0.0
        self._entry, self._wanted, self._called = entry, wanted, False
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._reported = len(self.reasons)

    @property
    def state(self) -> State:
        """Status of the plugin."""
        if not self._wanted:
            return "switched off"
        if not self._called:
            return "not asked"
        if not self.reasons:
            return "works"
        return "works in part" if self.registered else "left out"

    @property
    def origin(self) -> str:
        """The file that the entry point names, or the entry point where it was not imported."""
        file = getattr(self._module, "__file__", None)
        return file or str(getattr(self._entry, "value", self.name))

    def specs(self, hooks: Iterable[str]) -> dict[str, list[object]]:
        """Return what hooks register, by their names; nothing where the plugin fails."""
        return self._call(lambda: {hook: self._specs_of(hook) for hook in hooks}) or {}

    def add_commands(self, cli: Any) -> None:
        """Let the plugin add commands to a Typer application; loads none of its specs."""
        self._call(lambda: self._manager.hook.register_commands(cli=cli))

    def leave_out(self, reason: str) -> None:
        """Note why a part of what the plugin registers, or all of it, is left out."""
        reason = " ".join(reason.split())
        if reason not in self.reasons:
            self.reasons.append(reason)

    def report(self) -> None:
        """Warn once of what has been left out since the last report."""
        if len(self.reasons) == self._reported:
            return
        warnings.warn(
            f"plugin {self.name!r} is left out{' in part' if self.registered else ''}: "
            f"{'; '.join(self.reasons[self._reported :])}",
            PluginWarning,
            stacklevel=2,
        )
        self._reported = len(self.reasons)

    @property
    def _module(self) -> Any:
        return sys.modules.get(getattr(self._entry, "module", ""))

    def _call(self, function: Callable[[], Any]) -> Any:
        """Call a function of the plugin's, which is imported first; None where either fails."""
        if self._wanted and not self._called:
            self._called = True
            self.hooks = self._isolate(self._register) or ()
        return self._isolate(function) if self.hooks else None

    def _register(self) -> tuple[str, ...]:
        plugin = self._entry.load()
        self.api = getattr(
            plugin, "KORNIA_DITF_API", getattr(self._module, "KORNIA_DITF_API", None)
        )
        if self.api not in (None, hookspecs.API):
            raise _Refused(
                f"it is written for version {self.api!r} of the hooks, and this kornia_ditf has "
                f"version {hookspecs.API}"
            )
        self._manager.register(plugin)
        self._manager.check_pending()
        found = {each.name for each in self._manager.get_hookcallers(plugin) or ()}
        hooks = tuple(name for name in vars(hookspecs) if name in found)
        if not hooks:
            raise _Refused(
                "it implements no hook; decorate its functions with kornia_ditf.hookimpl"
            )
        return hooks

    def _specs_of(self, hook: str) -> list[object]:
        if hook not in self.hooks:
            return []
        answers = getattr(self._manager.hook, hook)()  # of pluggy, which drops None
        if not answers:
            raise _Refused(f"{hook} returned None, not a list of specs")
        specs = list(islice(answers[0], _MOST_SPECS))
        if len(specs) == _MOST_SPECS:
            raise _Refused(f"{hook} returns endless specs")
        return specs

    def _isolate(self, function: Callable[[], Any]) -> Any:
        """Call a function in a thread; None where it raises, or hangs and is left behind."""
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(function())
            except BaseException as error:  # noqa: BLE001 - SystemExit ends the plugin alone
                self.leave_out(str(error) if isinstance(error, _Refused) else describe_error(error))
                outcome.append(None)

        start, limit = time.perf_counter(), _time_limit()
        thread = PluginThread(target=run, name=f"kornia_ditf plugin {self.name}", daemon=True)
        with redirect_stdout(sys.stderr):  # what a plugin prints must not mix with results
            thread.start()
            thread.join(limit)
        self.seconds += time.perf_counter() - start
        if not outcome:
            self.leave_out(f"it did not answer within {limit:g} s; {SECONDS} sets another limit")
            return None
        return outcome[0]


class PluginThread(Thread):
    """A thread in which a plugin is called."""


class _Refused(Exception):
    """Why a plugin is left out, in words."""


@cache
def installed_plugins() -> tuple[Plugin, ...]:
    """Find the plugins by name; none is imported.

    The environment variable KORNIA_DITF_PLUGINS limits which may load: names of plugins or of
    their distributions with commas between them; empty for none.
    """
    selected = os.environ.get(SELECTION)
    names = {_plain(name) for name in (selected or "").split(",")} - {""}
    plugins, unknown = [], set(names)
    for entry in sorted(entry_points(group=hookspecs.PROJECT), key=lambda entry: entry.name):
        distribution = getattr(entry, "dist", None)
        own = {_plain(entry.name), _plain(distribution.name if distribution else entry.name)}
        plugins.append(Plugin(entry, wanted=selected is None or bool(own & names)))
        unknown -= own
    if unknown:
        warnings.warn(
            f"{SELECTION} names {', '.join(sorted(unknown))}, and no such plugin is installed",
            PluginWarning,
            stacklevel=2,
        )
    return tuple(plugins)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _time_limit() -> float:
    try:
        seconds = float(os.environ.get(SECONDS, _DEFAULT_SECONDS))
    except ValueError:
        seconds = _DEFAULT_SECONDS
    return seconds if 0 < seconds < math.inf else _DEFAULT_SECONDS


def describe_error(error: BaseException) -> str:
    """Describe an exception in one line that ends with the place where it was raised."""
    said = traceback.format_exception_only(error)[-1].strip()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    return f"{said} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else said
