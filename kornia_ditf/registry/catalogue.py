"""Specs by name: those that come with the package first, then those of one plugin after another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from threading import RLock, current_thread
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.dense import DescriptorSpec
from kornia_ditf.matchers.base import MatcherSpec
from kornia_ditf.registry.hookspecs import PROJECT
from kornia_ditf.registry.plugins import Plugin, PluginThread, installed_plugins

AnySpec: TypeAlias = BackboneSpec | DescriptorSpec | DatasetSpec | MatcherSpec


class Named(Protocol):
    """What a catalogue keeps."""

    @property
    def name(self) -> str:
        """What the user types."""


SpecT = TypeVar("SpecT", bound=Named)
OfKind = TypeVar("OfKind")


class Catalogue(Generic[SpecT]):
    """Specs by name; a plugin is called only when its turn comes.

    Args:
        built_in: those that come with the package.
        kinds: the hooks that are called for more, and the type of what each returns.
    """

    def __init__(self, built_in: Iterable[SpecT], kinds: Mapping[str, type[SpecT]]) -> None:
        self._built_in, self.kinds = tuple(built_in), kinds
        self._lock = RLock()
        self.forget()

    def forget(self) -> None:
        """Find and call the plugins anew when one is next needed."""
        self._found: dict[str, SpecT] = {spec.name: spec for spec in self._built_in}
        self._origins: dict[str, str] = {}
        self._waiting: list[Plugin] | None = None

    def __iter__(self) -> Iterator[SpecT]:
        """Iterate over the specs, built-in ones first."""
        seen = 0
        while True:
            more = list(self._found.values())[seen:]
            yield from more
            seen += len(more)
            # A plugin may look at the specs while it is called, in a thread that the caller awaits.
            called = isinstance(current_thread(), PluginThread)
            with nullcontext() if called else self._lock:
                if seen < len(self._found):
                    continue
                if self._waiting is None:
                    self._waiting = list(installed_plugins())
                if not self._waiting:
                    return
                self._add(self._waiting.pop(0))

    def of(self, kind: type[OfKind]) -> Iterator[OfKind]:
        """Iterate over the specs of a kind, built-in ones first."""
        return (spec for spec in self if isinstance(spec, kind))

    def specs(self) -> dict[str, SpecT]:
        """List the specs by name: built-in ones, then those of all plugins."""
        return {spec.name: spec for spec in self}

    def get(self, name: str) -> SpecT | None:
        """Find a spec by its name, calling plugins until one has it."""
        if "/" in name:  # a path or a hub id, for which no plugin need be called
            return None
        return self._found.get(name) or next((s for s in self if s.name == name), None)

    def origin(self, load: object) -> str:
        """Return the name of the plugin that a spec's loader comes from."""
        same = (name for name in self._origins if getattr(self._found[name], "load", None) == load)
        return self._origins.get(next(same, ""), PROJECT)

    def _add(self, plugin: Plugin) -> None:
        for hook, specs in plugin.specs(self.kinds).items():
            spec: Any
            for spec in specs:
                if type(spec) is not self.kinds[hook]:
                    plugin.leave_out(f"{hook} returned a {type(spec).__name__}")
                elif re.search(r"[+/\s]", spec.name):
                    plugin.leave_out(f"{spec.name!r} is not a name: it holds a +, a / or a space")
                elif spec.name in self._found:
                    owner = self._origins.get(spec.name, PROJECT)
                    plugin.leave_out(f"the name {spec.name!r} belongs to {owner}")
                else:
                    self._found[spec.name], self._origins[spec.name] = spec, plugin.name
                    plugin.registered.append(spec.name)
        plugin.report()
