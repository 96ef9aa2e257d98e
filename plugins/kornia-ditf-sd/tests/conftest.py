"""What the tests of the plugin share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_sd import save

from kornia_ditf.testing import tiny


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny random model, sharded, saved once; not to be changed."""

    base = tmp_path_factory.getbasetemp()
    return cache(lambda family: tiny.saved_once(base / f"sd-{family}", partial(save, family)))
