"""Built-in specs and plugins in; specs by name out, and what of a plugin is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import RLock, current_thread
from typing import TypeAlias

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.dense import DescriptorSpec
from kornia_ditf.registry.hookspecs import PROJECT
from kornia_ditf.registry.plugins import Plugin, PluginThread

AnySpec: TypeAlias = BackboneSpec | DescriptorSpec | DatasetSpec

KINDS: dict[str, type[AnySpec]] = {
    "register_backbones": BackboneSpec,
    "register_descriptors": DescriptorSpec,
    "register_datasets": DatasetSpec,
}


class Names:
    """Specs by name; plugins are asked one after another, and only while a name is not found.

    Args:
        built_in: an object with the hooks, which comes first.
        plugins: those to ask, in this order.
    """

    def __init__(self, built_in: object, plugins: Sequence[Plugin]) -> None:
        self.found: dict[str, AnySpec] = {}
        self._origins: dict[str, str] = {}
        for hook in KINDS:
            for spec in getattr(built_in, hook)():
                self.found[spec.name], self._origins[spec.name] = spec, PROJECT
        self._waiting = list(plugins)
        self._lock = RLock()

    def __iter__(self) -> Iterator[AnySpec]:
        """Go through the specs; a plugin is asked when its turn comes."""
        seen = 0
        while True:
            more = list(self.found.values())[seen:]
            yield from more
            seen += len(more)
            with self._alone():
                if seen == len(self.found):
                    if not self._waiting:
                        return
                    self._ask_next()

    def get(self, name: str) -> AnySpec | None:
        """Find a name, asking plugins until one has it."""
        if name not in self.found:
            with self._alone():
                while name not in self.found and self._waiting:
                    self._ask_next()
        return self.found.get(name)

    def all(self) -> dict[str, AnySpec]:
        """Ask every plugin, and give all names."""
        with self._alone():
            while self._waiting:
                self._ask_next()
        return self.found

    def origin(self, spec: AnySpec) -> str:
        """Return the name of the plugin that a spec, or its loader, comes from."""
        same = (each.name for each in self.found.values() if each.load == spec.load)
        return self._origins.get(next(same, ""), PROJECT)

    def _alone(self) -> AbstractContextManager[object]:
        # A plugin may look at the names while it is asked, in a thread that the asking one awaits.
        return nullcontext() if isinstance(current_thread(), PluginThread) else self._lock

    def _ask_next(self) -> None:
        plugin = self._waiting.pop(0)
        for hook, specs in plugin.ask().items():
            for spec in specs:
                if type(spec) is not KINDS[hook]:
                    plugin.leave_out(f"{hook} gave a {type(spec).__name__}")
                elif re.search(r"[+/\s]", spec.name):
                    plugin.leave_out(f"{spec.name!r} is no name: it holds a +, a / or a space")
                elif spec.name in self.found:
                    owner = self._origins[spec.name]
                    plugin.leave_out(f"the name {spec.name!r} belongs to {owner}")
                else:
                    self.found[spec.name], self._origins[spec.name] = spec, plugin.name
                    plugin.registered.append(spec.name)
        plugin.settle()
