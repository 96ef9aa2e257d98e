"""What every test and doctest stands on, and which tests wait to be asked for."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# One thread for each test process and for what it starts: more would only wait for each other.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# A shell's background jobs ignore Ctrl-C, and all that they start would; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine must not turn a slow example into a failure, and each run tries the same ones.
settings.register_profile("kornia_ditf", deadline=None, derandomize=True)
settings.load_profile("kornia_ditf")


@pytest.fixture(autouse=True, scope="module")
def _freeze() -> None:
    """Spare the collector what the imported libraries hold: going through it takes .3 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    import torch

    doctest_namespace["torch"] = torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a test caches away from the user's cache, and from other tests."""
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / ".cache"))


@pytest.fixture(autouse=True)
def _own_presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep calibrated presets away from the user's, in both directions."""
    monkeypatch.setenv("KORNIA_DITF_PRESETS", str(tmp_path / ".presets"))


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
