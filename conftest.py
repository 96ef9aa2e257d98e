"""What the doctests see besides the module they stand in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    import torch

    doctest_namespace["torch"] = torch


# First calls import libraries; a deadline would measure that.
settings.register_profile("kornia_ditf", deadline=None)
settings.load_profile("kornia_ditf")
