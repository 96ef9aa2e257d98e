"""What the tests of the plugin share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_sd import save

from kornia_ditf.testing import tiny


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny random model, sharded, saved once; not to be changed."""

    @cache
    def give(family: str) -> Path:
        path = tmp_path_factory.mktemp(family)
        with tiny.seeded():
            save(family, path)
        return path

    return give
