"""An installed plugin's entry point, without an installation."""

from __future__ import annotations


class Entry:
    """An entry point that loads a given object, or raises a given exception."""

    def __init__(self, name: str, plugin: object) -> None:
        self.name, self.plugin = name, plugin

    def load(self) -> object:
        if isinstance(self.plugin, Exception):
            raise self.plugin
        return self.plugin
