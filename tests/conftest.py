"""What the tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
from browser import chromium  # noqa: F401 - a fixture
from tiny import save_tiny

from kornia_ditf.testing.tiny import saved_once


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny random checkpoint of a family, saved once; not to be changed."""
    folder = tmp_path_factory.getbasetemp()
    return cache(lambda family: saved_once(folder / f"tiny-{family}", partial(save_tiny, family)))
