"""Specs by name: those that come with the package first, then those of one plugin after another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock, RLock, current_thread
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.dense import DescriptorSpec
from kornia_ditf.matchers.base import MatcherSpec
from kornia_ditf.registry.hookspecs import PROJECT
from kornia_ditf.registry.plugins import Plugin, PluginThread, installed_plugins

AnySpec: TypeAlias = BackboneSpec | DescriptorSpec | DatasetSpec | MatcherSpec

KINDS: Mapping[str, type[AnySpec]] = {
    "register_backbones": BackboneSpec,
    "register_descriptors": DescriptorSpec,
    "register_datasets": DatasetSpec,
    "register_matchers": MatcherSpec,
}


class Named(Protocol):
    """What a catalogue keeps."""

    @property
    def name(self) -> str:
        """What the user types."""


SpecT = TypeVar("SpecT", bound=Named)


class Catalogue(Generic[SpecT]):
    """Specs by name; a plugin is called only when its turn comes.

    Args:
        built_in: those that come with the package.
        plugins: those to call for more, in this order.
        kinds: the hooks that are called, and the type of what each returns.
    """

    def __init__(
        self,
        built_in: Iterable[SpecT],
        plugins: Sequence[Plugin],
        kinds: Mapping[str, type[SpecT]],
    ) -> None:
        self._kinds = kinds
        self._found = {spec.name: spec for spec in built_in}
        self._origins: dict[str, str] = dict.fromkeys(self._found, PROJECT)
        self._waiting = list(plugins)
        self._lock = RLock()

    def __iter__(self) -> Iterator[SpecT]:
        """Go through the specs, built-in ones first."""
        seen = 0
        while True:
            more = list(self._found.values())[seen:]
            yield from more
            seen += len(more)
            with self._alone():
                if seen == len(self._found):
                    if not self._waiting:
                        return
                    self._add(self._waiting.pop(0))

    def get(self, name: str) -> SpecT | None:
        """Find a spec by its name, calling plugins until one has it."""
        return self._found.get(name) or next((spec for spec in self if spec.name == name), None)

    def origin(self, load: object) -> str:
        """Return the name of the plugin that a spec's loader comes from."""
        same = (n for n, each in self._found.items() if getattr(each, "load", None) == load)
        return self._origins.get(next(same, ""), PROJECT)

    def _alone(self) -> AbstractContextManager[object]:
        # A plugin may look at the specs while it is called, in a thread that the caller awaits.
        return nullcontext() if isinstance(current_thread(), PluginThread) else self._lock

    def _add(self, plugin: Plugin) -> None:
        for hook, specs in plugin.specs(self._kinds).items():
            spec: Any
            for spec in specs:
                if type(spec) is not self._kinds[hook]:
                    plugin.leave_out(f"{hook} gave a {type(spec).__name__}")
                elif re.search(r"[+/\s]", spec.name):
                    plugin.leave_out(f"{spec.name!r} is no name: it holds a +, a / or a space")
                elif spec.name in self._found:
                    owner = self._origins[spec.name]
                    plugin.leave_out(f"the name {spec.name!r} belongs to {owner}")
                else:
                    self._found[spec.name], self._origins[spec.name] = spec, plugin.name
                    plugin.registered.append(spec.name)
        plugin.report()


class LateCatalogue(Generic[SpecT]):
    """A catalogue that is made when it is first needed.

    Args:
        built_in: specs that come with the package.
        kinds: the hooks that are called for more, and the type of what each returns.
    """

    def __init__(self, built_in: Iterable[SpecT], kinds: Mapping[str, type[SpecT]]) -> None:
        self._built_in, self._kinds = tuple(built_in), kinds
        self._lock = Lock()  # two threads must not make two, of which each would call some plugins
        self._made: Catalogue[SpecT] | None = None

    def made(self) -> Catalogue[SpecT]:
        """Return the catalogue."""
        with self._lock:
            if self._made is None:
                self._made = Catalogue(self._built_in, installed_plugins(), self._kinds)
            return self._made

    def specs(self) -> dict[str, SpecT]:
        """List the specs by name: built-in ones, then those of all plugins."""
        return {spec.name: spec for spec in self.made()}

    def forget(self) -> None:
        """Call the plugins anew when specs are next needed."""
        self._made = None
