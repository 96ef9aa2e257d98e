"""Where kornia_ditf keeps what it can make again: prompt embeddings and calibrations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kornia_ditf.errors import OutputError
from kornia_ditf.utils.files import atomic_write


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


@contextmanager
def write_to_cache(path: Path) -> Iterator[Path]:
    """Write a file of the cache, whole or not at all, making its folder if there is none.

    Raises:
        OutputError: the cache cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error}; name another folder with KORNIA_DITF_CACHE"
        ) from error
    with atomic_write(path) as temporary:
        yield temporary
