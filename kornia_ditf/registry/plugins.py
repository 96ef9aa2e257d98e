"""Installed distributions in; what each plugin registers, or why it is left out, out.

A plugin is an entry point in the group `kornia_ditf`. Each has a pluggy manager of its own and is
asked in a thread with a time limit, so that one that raises, exits or hangs costs itself alone.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable
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
HOOKS = ("register_backbones", "register_descriptors", "register_datasets", "register_commands")

_DEFAULT_SECONDS = 10.0
_MOST_SPECS = 10_000  # a hook that gives more never ends

State = Literal["not asked", "works", "works in part", "left out", "switched off"]


class Plugin:
    """One plugin, as it was found and as it behaved.

    Args:
        entry: its entry point.
        wanted: whether the environment lets it load.
    """

    def __init__(self, entry: EntryPoint, *, wanted: bool = True) -> None:
        self.entry, self.name = entry, entry.name
        distribution = getattr(entry, "dist", None)
        self.distribution = distribution.name if distribution is not None else None
        self.version = distribution.version if distribution is not None else None
        self.state: State = "not asked" if wanted else "switched off"
        self.reasons: list[str] = [] if wanted else [f"{SELECTION} does not name it"]
        self._told = False
        self.hooks: tuple[str, ...] = ()
        self.registered: list[str] = []
        self.api: object = None
        self.seconds = 0.0
        self._manager: pluggy.PluginManager | None = None

    @property
    def origin(self) -> str:
        """The file that the entry point names, or the entry point where it was not imported."""
        module = sys.modules.get(getattr(self.entry, "module", ""))
        return getattr(module, "__file__", None) or str(getattr(self.entry, "value", self.name))

    def ask(self) -> dict[str, list[object]]:
        """Import the plugin, and give what its hooks register; nothing where it is left out."""
        if self.state == "not asked":
            self.state = "works"
            answers: dict[str, list[object]] | None = self._attempt(self._load_and_ask)
            if answers is not None:
                return answers
        return {}

    def add_commands(self, cli: Any) -> None:
        """Let the plugin, which was asked before, add commands to a Typer application."""
        if self._manager is not None and "register_commands" in self.hooks:
            manager = self._manager
            self._attempt(lambda: manager.hook.register_commands(cli=cli))

    def leave_out(self, reason: str) -> None:
        """Note why a part of what the plugin registers, or all of it, is left out."""
        if reason not in self.reasons:
            self.reasons.append(" ".join(reason.split()))

    def settle(self) -> None:
        """Say in one warning what was left out, once all that it registers was looked at.

        What comes later, from its commands, is among its reasons alone.
        """
        if not self.reasons or self.state == "switched off":
            return
        self.state = "works in part" if self.registered else "left out"
        if self._told:
            return
        self._told = True
        warnings.warn(
            f"plugin {self.name!r} is left out{' in part' if self.registered else ''}: "
            f"{'; '.join(self.reasons)}",
            PluginWarning,
            stacklevel=2,
        )

    def _load_and_ask(self) -> dict[str, list[object]]:
        plugin = self.entry.load()
        module = sys.modules.get(getattr(self.entry, "module", ""))
        self.api = getattr(plugin, "KORNIA_DITF_API", getattr(module, "KORNIA_DITF_API", None))
        if self.api not in (None, hookspecs.API):
            raise _Refused(
                f"it is written for version {self.api!r} of the hooks, and this kornia_ditf has "
                f"version {hookspecs.API}"
            )
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        manager.register(plugin, name=self.name)
        manager.check_pending()
        self.hooks = tuple(hook for hook in HOOKS if getattr(manager.hook, hook).get_hookimpls())
        if not self.hooks:
            raise _Refused(
                "it implements no hook; decorate its functions with kornia_ditf.hookimpl"
            )
        self._manager = manager
        return {hook: _specs_of(manager, hook) for hook in HOOKS[:3]}

    def _attempt(self, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return _call_within(_time_limit(), call, self.name)
        except _Refused as refusal:
            self.leave_out(str(refusal))
            return None
        finally:
            self.seconds += time.perf_counter() - start


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
        plugin = Plugin(entry)
        own = {_plain(plugin.name), _plain(plugin.distribution or plugin.name)}
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


def _specs_of(manager: pluggy.PluginManager, hook: str) -> list[object]:
    specs: list[object] = []
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        answer = implementation.function()  # pluggy itself would drop a None without a word
        if answer is None:
            raise _Refused(f"{hook} gave None, not a list of specs")
        specs += islice(answer, _MOST_SPECS)
    if len(specs) >= _MOST_SPECS:
        raise _Refused(f"{hook} gives specs without end")
    return specs


def _time_limit() -> float:
    try:
        seconds = float(os.environ.get(SECONDS, _DEFAULT_SECONDS))
    except ValueError:
        seconds = _DEFAULT_SECONDS
    return seconds if 0 < seconds < math.inf else _DEFAULT_SECONDS


def _call_within(seconds: float, call: Callable[[], Any], name: str) -> Any:
    """Give what a call returns, or refuse what it raised; one that hangs is left behind."""
    outcome: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:  # noqa: BLE001 - a SystemExit of a plugin ends the plugin
            outcome.append((None, error))

    thread = PluginThread(target=run, name=f"kornia_ditf plugin {name}", daemon=True)
    with redirect_stdout(sys.stderr):  # what a plugin prints must not mix with results
        thread.start()
        thread.join(seconds)
    if not outcome:
        raise _Refused(f"it did not answer within {seconds:g} s; {SECONDS} sets another limit")
    value, error = outcome[0]
    if error is None:
        return value
    if isinstance(error, _Refused):
        raise error
    raise _Refused(describe_error(error)) from error


class PluginThread(Thread):
    """A thread in which a plugin is asked."""


def describe_error(error: BaseException) -> str:
    """Describe an exception in one line that ends with the place where it was raised."""
    said = traceback.format_exception_only(error)[-1].strip()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    return f"{said} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else said
