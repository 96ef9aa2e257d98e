"""A path goes in, and the file appears there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, EIO, ENOSPC, EROFS
from pathlib import Path

from kornia_ditf.errors import OutputError

_WRITE_FAILURES = (EDQUOT, EFBIG, EIO, ENOSPC, EROFS)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder, and rename it to `path` when the block succeeds.

    Whatever stood at `path` stays until then, and for ever if the block fails; the temporary
    file is removed. It keeps the suffix of `path`, which many writers choose their format by.
    The folder is tried on entry, so that a mistake speaks before the work and not after it.

    Args:
        path: where the file shall be; a link is followed.

    Yields:
        an empty file's path, to be written to.

    Raises:
        OutputError: the folder is missing or not writable, `path` is a folder or a device, or
            the disk is full.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "result.json"
        >>> with atomic_write(target) as temporary:
        ...     _ = temporary.write_text("{}")
        >>> target.read_text()
        '{}'
    """
    target = _checked(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
    try:
        # Not tempfile.mkstemp: its files are private (0600) and would stay so after the rename.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({_reason(error)}): choose a folder that you may write to"
        ) from error
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    except OSError as error:
        if isinstance(error, OutputError) or not (
            error.errno in _WRITE_FAILURES or str(temporary) in (error.filename, error.filename2)
        ):
            raise  # The block failed at something else, such as a file that it reads.
        raise OutputError(
            f"cannot write {path} ({_reason(error)}): free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _checked(path: str | Path) -> Path:
    try:
        target = Path(path).resolve()
        exists, folder = target.exists(), target.parent
        if target.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder, so add a file name to it")
        if exists and not target.is_file():
            raise OutputError(f"cannot write {path}: it is not a regular file, so name another")
        if not folder.is_dir():
            raise OutputError(
                f"cannot write {path}: there is no folder {folder}; type `mkdir -p {folder}`"
            )
    except OutputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # names too long, NUL bytes, link loops
        raise OutputError(
            f"cannot write {path!r} ({_reason(error)}): choose another name"
        ) from error
    return target


def _flush(path: Path) -> None:
    # Without it a power cut soon after the rename may leave the new name with no content.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
