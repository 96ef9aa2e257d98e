from __future__ import annotations

from collections.abc import Iterator

import pytest
from plugin_entries import Entry

from kornia_ditf.registry import lookup, plugins


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Entry]]:
    entries: list[Entry] = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
    lookup.forget_plugins()
    yield entries
    lookup.forget_plugins()
