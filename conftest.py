"""What the doctests see besides the module they stand in, and which tests wait to be asked for."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    import torch

    doctest_namespace["torch"] = torch


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    if not torch.cuda.is_available():
        _skip(items, "gpu", "no accelerator here")
    if "network" not in config.getoption("markexpr"):
        _skip(items, "network", "asks the model hub; run with -m network")


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))
