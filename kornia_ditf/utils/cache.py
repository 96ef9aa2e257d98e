"""The cache: files that can be made again, believed only where their checksum is right."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from kornia_ditf.errors import DamagedFileError, OutputError
from kornia_ditf.utils.files import atomic_write, make_folder

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the cache folder, which may not exist yet.

    It is `KORNIA_DITF_CACHE` where that environment variable is set, and otherwise the user's
    cache folder. A user without a home folder gets a temporary one, removed when Python exits.

    Raises:
        OutputError: `KORNIA_DITF_CACHE` begins with a `~` that stands for no folder.
    """
    from platformdirs import user_cache_path

    found = user_folder("KORNIA_DITF_CACHE", lambda: user_cache_path("kornia-ditf"))
    return Path(_homeless_folder().name) if found is None else found


def user_folder(variable: str, find: Callable[[], Path]) -> Path | None:
    """Return the folder that an environment variable names, or else one in the user's home.

    Args:
        variable: its name.
        find: finds the other one, by platformdirs.

    Returns:
        the folder; None where the variable is not set and there is no home folder.

    Raises:
        OutputError: the variable begins with a `~` that stands for no folder.
    """
    named = os.environ.get(variable)
    try:
        folder = Path(named).expanduser() if named else find()
    except RuntimeError as error:
        if not named:
            return None
        raise OutputError(f"cannot use {variable}={named!r} ({error}); give a full path") from error
    return folder if named or folder.is_absolute() else None


@cache
def _homeless_folder() -> TemporaryDirectory[str]:
    logger.warning(
        "there is no home folder, so nothing is cached after this process ends; "
        "name a folder with KORNIA_DITF_CACHE"
    )
    return TemporaryDirectory(prefix="kornia-ditf-", ignore_cleanup_errors=True)


@contextmanager
def write_to_cache(path: Path) -> Iterator[Path]:
    """Write a file of the cache atomically, making its folder if there is none.

    Raises:
        OutputError: the cache cannot be written.
    """
    make_folder(path.parent, "name another folder with KORNIA_DITF_CACHE")
    with atomic_write(path) as temporary:
        yield temporary


@contextmanager
def write_checked(path: Path) -> Iterator[Path]:
    """Write a file of the cache with its SHA-256 beside it, for `is_sound`.

    Raises:
        OutputError: the cache cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "channels.json"
        >>> with write_checked(path) as temporary:
        ...     _ = temporary.write_text("[676]")
        >>> is_sound(path)
        True
        >>> _ = path.write_text("[677]")
        >>> is_sound(path)
        False
    """
    with write_to_cache(path) as temporary:
        yield temporary
        # Killed between the two renames, the checksum is ahead of its file: that is made again.
        with atomic_write(path.with_suffix(".sha256")) as checksum:
            checksum.write_text(f"{sha256(temporary)}  {path.name}\n", "utf-8")


def is_sound(path: Path) -> bool:
    """Whether a file that `write_checked` wrote is there and holds what was written.

    A file that is there and is not sound is named in a warning of this module's logger: the
    caller makes it again.
    """
    try:
        if not path.exists():
            return False
        check_sound(path)
    except (DamagedFileError, OSError) as error:
        logger.warning("%s; it is made again", error)
        return False
    return True


def check_sound(path: Path) -> str:
    """Check a file that `write_checked` wrote against its checksum, and return that.

    Raises:
        DamagedFileError: it is missing or does not hold what was written.
    """
    try:
        found, beside = sha256(path), path.with_suffix(".sha256")
        written = beside.read_text("utf-8").split() if beside.exists() else None
    except (OSError, ValueError) as error:
        raise DamagedFileError(path, str(error)) from error
    if written is None or written[:1] != [found]:
        reason = "missing" if written is None else "wrong"
        raise DamagedFileError(path, f"its checksum is {reason}")
    return found


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
