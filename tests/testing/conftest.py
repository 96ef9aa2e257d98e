from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def model(tiny_checkpoint: Callable[[str], Path]) -> Path:
    """A tiny random model in nano's layout; not to be changed."""
    return tiny_checkpoint("nano")
