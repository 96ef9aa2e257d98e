"""What the tests of the zoo share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_zoo import save_tiny

for _group in ("cross", "flux", "joint", "single", "video"):
    import_module(f"tiny_{_group}")  # where each family's saver is noted


@pytest.fixture(scope="session")
def tiny_zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny random model of a backbone, saved once; not to be changed."""
    made: dict[str, Path] = {}

    def give(name: str) -> Path:
        if name not in made:
            made[name] = save_tiny(name, tmp_path_factory.mktemp(name))
        return made[name]

    return give


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep prompts between tests, and do not sweep memory for encoders as tiny as these."""
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(_cache))
    monkeypatch.setattr("kornia_ditf.loading.prompts.gc.collect", lambda: 0)
