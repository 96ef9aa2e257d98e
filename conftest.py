"""What the doctests see besides the module they stand in."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    import torch

    doctest_namespace["torch"] = torch
