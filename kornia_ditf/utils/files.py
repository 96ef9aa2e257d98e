"""Atomic writes: a file appears whole or not at all, with the same bytes for the same content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, EIO, ENOSPC, EROFS
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf.errors import DamagedFileError, DiTFError, InvalidArgumentError, OutputError

try:
    import fcntl
except ImportError:  # Windows, where nothing tells that a writer is still alive
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

_WRITE_FAILURES = (EDQUOT, EFBIG, EIO, ENOSPC, EROFS)
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}(\.\w+)?")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` when the block succeeds.

    A file that was at `path` stays until then, and for good if the block fails; the temporary
    file is removed. It keeps the suffix of `path`, which many writers choose their format by.
    The folder is tried on entry, so that a mistake is found before the work and not after it.

    Args:
        path: the file's path; a symbolic link is followed.

    Yields:
        the path of an empty file to write to.

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
    with os_errors_as(OutputError, f"cannot write {path}", "choose a folder that you may write to"):
        descriptor = _create(temporary)
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
            f"cannot write {path} ({_reason(error)}); free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def os_errors_as(
    error: Callable[[str], DiTFError], failed: str, advice: str = ""
) -> Iterator[None]:
    """Raise an error of ours for one of the system's: what failed, its reason and the advice.

    Example:
        >>> with os_errors_as(OutputError, "cannot read notes.txt", "name another file"):
        ...     Path("notes.txt").read_text()
        Traceback (most recent call last):
        kornia_ditf.errors.OutputError: cannot read notes.txt (No such file or directory); \
name another file
    """
    try:
        yield
    except DiTFError:
        raise
    except OSError as problem:
        raise error(f"{failed} ({_reason(problem)}){advice and f'; {advice}'}") from problem


def make_folder(folder: Path, advice: str = "name another folder") -> None:
    """Create a folder for results if it does not exist; errors end with the advice.

    Raises:
        OutputError: it cannot be made.
    """
    with os_errors_as(OutputError, f"cannot write to {folder}", advice):
        folder.mkdir(parents=True, exist_ok=True)


def sweep(folder: Path) -> None:
    """Remove the temporary files below a folder whose writers were killed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".0123456789abcdef.json").touch()
        >>> with atomic_write(folder / "result.json"):
        ...     sweep(folder)
        ...     print(len(list(folder.iterdir())))
        1
    """
    for path in folder.rglob(".*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            with suppress(OSError):
                if not _is_locked(path):
                    path.unlink()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on its content alone.

    `safetensors.torch.save_file` orders metadata at random, and makes a private temporary file
    of its own, which stays when the process is killed.
    """
    with path.open("wb") as file:
        file.writelines(_pack(tensors, metadata))


def _pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, memoryview]:
    """Return the header of a safetensors file, and what follows it."""
    from safetensors.torch import save

    content = memoryview(save(dict(tensors), dict(metadata)))
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(bytes(content[8:end])), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header, content[end:]


def save_sealed(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and JSON values about them, with a digest of both; see `read_sealed`."""
    save_tensors(path, tensors, _seal(tensors, about))


def pack_sealed(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """Return the content of the file that `save_sealed` writes."""
    return b"".join(_pack(tensors, _seal(tensors, about)))


def _seal(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> dict[str, str]:
    values = {name: json.dumps(value) for name, value in about.items()}
    return {**values, "sha256": json.dumps(_digest(tensors, values))}


def read_sealed(
    path: str | Path, content: bytes | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_sealed` wrote: the tensors, on the CPU, and the values about them.

    Args:
        path: the file.
        content: what `pack_sealed` returned, where that lies elsewhere; errors name the path.

    Raises:
        InvalidArgumentError: there is no such file.
        DamagedFileError: it holds something else, or was changed or cut short.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    try:
        content = path.read_bytes() if content is None else content
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        values: dict[str, str] = header.get("__metadata__", {})
        sealed = values.pop("sha256", "")
        if sealed != json.dumps(_digest(tensors, values)):
            raise DamagedFileError(path, "its checksum is wrong")
        return tensors, {name: json.loads(value) for name, value in values.items()}
    except FileNotFoundError as error:
        raise InvalidArgumentError(f"there is no file {path}") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedFileError(path, " ".join(str(error).split())) from error


def tar_members(path: Path) -> Iterator[tarfile.TarInfo]:
    """Iterate over the members of an uncompressed tar, in order.

    Raises:
        tarfile.TarError: it is not such a file; or it is cut short, once its members are through.
        OSError: it cannot be read.
    """
    with tarfile.open(path, "r:") as tar, path.open("rb") as file:
        yield from tar
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it is cut short")


def _digest(tensors: Mapping[str, Tensor], values: Mapping[str, str]) -> str:
    import torch

    layout = {name: [str(data.dtype), list(data.shape)] for name, data in tensors.items()}
    digest = hashlib.sha256(json.dumps([layout, dict(values)], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _create(temporary: Path) -> int | None:
    """Create an empty file, locked while its descriptor is open, so that nobody sweeps it."""
    # Not tempfile.mkstemp: its files are private (0600) and would stay so after the rename.
    while True:
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o666)
        if fcntl is None:
            os.close(descriptor)
            return None
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # it was swept before it was locked


def _is_locked(path: Path) -> bool:
    if fcntl is None:
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


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
            f"cannot write {str(path)!r} ({_reason(error)}); choose another name"
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
