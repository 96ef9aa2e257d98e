"""Where kornia_ditf keeps what it can make again: prompt embeddings and calibrations."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Give the cache's folder, which may not exist yet.

    The environment variable `KORNIA_DITF_CACHE` names it; otherwise it is the user's cache folder
    as the operating system has it.
    """
    named = os.environ.get("KORNIA_DITF_CACHE")
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("kornia-ditf")
