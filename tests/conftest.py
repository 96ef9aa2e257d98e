"""What the tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser import chromium  # noqa: F401 - a fixture
from tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny random checkpoint of a family, saved once; not to be changed."""
    made: dict[str, Path] = {}

    def give(family: str) -> Path:
        if family not in made:
            made[family] = save_tiny(family, tmp_path_factory.mktemp(family))
        return made[family]

    return give
