"""A study's folder kept from other runs, and swept of what killed ones left."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kornia_ditf.errors import OutputError, StudyError

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}(\.\w+)?")  # what atomic_write leaves when it is killed


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep a study's folder from other runs; the system lets go of it however this one ends.

    Raises:
        StudyError: another run has it.
        OutputError: it cannot be made or written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(out / ".lock")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        (out / ".owner").write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        _sweep(out)
    except Timeout as error:
        raise StudyError(
            f"{out} is in use by another run ({_owner(out)}); wait for it, or give another --out"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot write to {out} ({error.strerror}); name another") from error
    try:
        yield
    finally:
        lock.release()


def _owner(out: Path) -> str:
    try:
        return (out / ".owner").read_text("utf-8")
    except OSError:
        return "unknown"


def _sweep(out: Path) -> None:
    """Remove the temporary files of runs that were killed."""
    for path in out.rglob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)
