"""A study's folder: locked for one run, swept of temporary files, without links that lead out."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kornia_ditf.errors import OutputError, StudyError
from kornia_ditf.utils.files import os_errors_as, sweep
from kornia_ditf.utils.text import byte_size


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Lock a study's folder; the system releases it however this process ends.

    Raises:
        StudyError: another run holds the lock.
        OutputError: the folder cannot be made or written, or holds a link that leads out of it.
    """
    lock = FileLock(out / ".lock")
    with os_errors_as(OutputError, f"cannot write to {out}", "name another"):
        refuse_links(out)
        out.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StudyError(
                f"{out} is in use by another run ({_owner(out)}); wait for it, or choose another "
                "--out"
            ) from error
        (out / ".owner").write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        sweep(out)
    try:
        yield
    finally:
        lock.release()


def refuse_links(folder: Path) -> None:
    """Check that no link in a folder, which may come from elsewhere, leads out of it.

    Raises:
        OutputError: one does, and would be written through.
    """
    whole = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(whole):
            raise OutputError(
                f"{path} is a link that leads out of {folder}: remove it (descriptor maps can be "
                "kept in another folder with --cache)"
            )


def check_file(path: Path, limit: int) -> None:
    """Check that a path and its checksum are files, no devices or pipes, of a usual size.

    Raises:
        StudyError: one is not, or it holds more than `limit` bytes.
    """
    for each in (path, path.with_suffix(".sha256")):
        with os_errors_as(StudyError, f"cannot read {each}"):
            if each.exists() and not each.is_file():
                raise StudyError(f"{each} is not a file, so it is not read")
            if each.is_file() and each.stat().st_size > limit:
                raise StudyError(f"{each} is larger than {byte_size(limit)}, so it is not read")


def _owner(out: Path) -> str:
    try:
        return (out / ".owner").read_text("utf-8")
    except OSError:
        return "unknown"
