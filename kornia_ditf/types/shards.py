"""Descriptors of many images in shards: tar files of the files that single images have."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.types.descriptors import DescriptorMap, read_map
from kornia_ditf.utils.files import atomic_write, os_errors_as, tar_members

_SUFFIX = ".safetensors"
_LONGEST_HEADER = 100_000_000  # as safetensors has it


@dataclass(frozen=True, slots=True)
class StoredMap:
    """Descriptors of one image in a file of their own, or in a shard.

    Args:
        path: the file or shard.
        member: its name in the shard; empty for a file of its own.
        offset: where it begins in the shard, in bytes.
        size: of it in the shard, in bytes.
    """

    path: Path
    member: str = ""
    offset: int = 0
    size: int = -1

    def __str__(self) -> str:
        return str(self.path / self.member)

    def read(self, block: int | None = None) -> tuple[DescriptorMap, dict[str, Any]]:
        """Read the descriptors and what is said of them; errors as `DescriptorMap.load`."""
        if not self.member:
            return read_map(self.path, block)
        return read_map(str(self), block, content=self._bytes(self.size))

    def about(self) -> dict[str, Any]:
        """Read what is said of the descriptors, without them and unchecked.

        Raises:
            DamagedFileError: there is no such thing.
        """
        try:
            length = int.from_bytes(self._bytes(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError("it is longer than 100 MB")
            header = json.loads(self._bytes(8 + length)[8:])
            return {name: json.loads(value) for name, value in header["__metadata__"].items()}
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFileError(Path(str(self)), f"its header is damaged ({error})") from error

    def _bytes(self, count: int) -> bytes:
        damaged = partial(DamagedFileError, self.path)
        with os_errors_as(damaged, "it cannot be read"), self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(count)


def list_stored(path: Path) -> list[StoredMap]:
    """List what a file, a shard, or a folder of files and shards holds.

    An image that several shards hold under one name, as those of a folder that has grown do, is
    listed once.

    Args:
        path: a `.safetensors` file, a `.tar` shard, or a folder of both.

    Raises:
        DamagedFileError: a shard is damaged or cut short.
    """
    if not path.is_dir():
        return list(_each_member(path)) if path.suffix == ".tar" else [StoredMap(path)]
    files = [StoredMap(file) for file in visible(path, "*.safetensors")]
    members = [member for shard in visible(path, "*.tar") for member in _each_member(shard)]
    names = Counter(member.member for member in members)
    seen: set[tuple[str, Any]] = set()
    for member in members:
        if names[member.member] > 1:
            key = (member.member, member.about().get("image_sha256"))
            if key in seen:
                continue
            seen.add(key)
        files.append(member)
    return files


def read_shards(
    path: str | Path, *, block: int | None = None
) -> Iterator[tuple[str, DescriptorMap]]:
    """Read the descriptors that `kornia-ditf extract --engine ray` wrote, one image at a time.

    Args:
        path: a folder of shards, or one shard; files of single images are read as well.
        block: which block, where they hold several.

    Yields:
        the name of each image, such as `cats/1.jpg`, and its map, on the CPU; each image once.

    Raises:
        InvalidArgumentError: there is nothing to read, or not this block in it.
        DamagedFileError: a shard was changed or cut short.

    Example:
        >>> import tempfile
        >>> from kornia_ditf import DescriptorMap, Frame
        >>> folder = Path(tempfile.mkdtemp())
        >>> DescriptorMap(torch.randn(1, 8, 4, 4), Frame((32, 32), (32, 32))).save(
        ...     folder / "a.jpg.safetensors"
        ... )
        >>> [(name, described.grid) for name, described in read_shards(folder)]
        [('a.jpg', (4, 4))]
    """
    stored = list_stored(Path(path)) if Path(path).exists() else []
    if not stored:
        raise InvalidArgumentError(f"there are no descriptors in {path}: expected .tar shards")
    for each in stored:
        name = each.member or each.path.name
        yield name.removesuffix(_SUFFIX), each.read(block)[0]


def write_shard(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a shard, whole or not at all; equal files give equal bytes.

    Args:
        path: ends in `.tar`.
        files: the name of each image, and the content of its safetensors file.

    Raises:
        OutputError: the shard cannot be written.
    """
    with atomic_write(path) as temporary, tarfile.open(temporary, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(member_name(name))
            member.size = len(content)
            tar.addfile(member, BytesIO(content))


def member_name(image: str) -> str:
    """Return the name of an image's file in a shard: always below the folder it is unpacked to.

    Example:
        >>> member_name("/data/../cats/1.jpg")
        'data/cats/1.jpg.safetensors'
    """
    parts = [part for part in PurePosixPath(image).parts if part not in ("/", "//", "..")]
    return "/".join(parts) + _SUFFIX


def visible(folder: Path, pattern: str) -> list[Path]:
    """List the files of a folder that match, without those that are being written."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def first_stored(shard: Path) -> StoredMap | None:
    """Return the first image of a shard, without reading the others; None where it holds none."""
    return next(_each_member(shard), None)


def _each_member(shard: Path) -> Iterator[StoredMap]:
    try:
        for member in tar_members(shard):
            if member.isfile() and member.name.endswith(_SUFFIX):
                yield StoredMap(shard, member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise DamagedFileError(shard, str(error)) from error
