"""Images in folders, WebDataset tars and Parquet files, listed in pieces that one worker reads."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any
from zlib import crc32

from kornia_ditf.errors import ImageError, InvalidArgumentError, MissingExtraError
from kornia_ditf.utils.extras import import_extra
from kornia_ditf.utils.files import os_errors_as, tar_members
from kornia_ditf.utils.images import read_bytes

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".heic", ".avif")
_PIECE_BYTES = 256 * 2**20
_COLUMN = "image"


@dataclass(frozen=True, slots=True)
class Item:
    """One encoded image.

    Args:
        name: of the image in its folder, tar or Parquet file.
        start: where it begins in a tar, in bytes; its row in a Parquet file's row group.
        size: encoded, in bytes; of a Parquet file the mean of its row group.
    """

    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Images that one worker reads and describes together.

    Args:
        path: the folder, tar or Parquet file that they are in.
        items: the images.
        column: of a Parquet file, that holds the images.
        group: of a Parquet file, the row group.
    """

    path: str
    items: tuple[Item, ...]
    column: str = ""
    group: int = 0

    @property
    def size(self) -> int:
        """Encoded bytes of all images."""
        return sum(item.size for item in self.items)

    def images(self) -> list[Piece]:
        """Return a piece for each image."""
        return [replace(self, items=(item,)) for item in self.items]

    def without(self, images: Container[Piece]) -> Piece:
        """Return the piece without some of its `images`; it may hold none."""
        kept = (one.items[0] for one in self.images() if one not in images)
        return replace(self, items=tuple(kept))

    def to_json(self) -> str:
        """Write the piece as JSON; see `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Piece:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        items = tuple(Item(**item) for item in values.pop("items"))
        return cls(items=items, **values)

    def label(self, item: Item) -> str:
        """Return what messages call an image: the path of a file, or its place in a file."""
        return str(Path(self.path, item.name))

    def read(self) -> Iterator[tuple[Item, bytes | ImageError]]:
        """Read the images, still encoded, each or the error that says why it cannot be read."""
        if self.column:
            yield from self._read_rows()
            return
        in_tar = not Path(self.path).is_dir()
        for item in self.items:
            try:
                with os_errors_as(ImageError, f"cannot read {self.label(item)}"):
                    if in_tar:
                        with Path(self.path).open("rb") as file:
                            file.seek(item.start)
                            content = file.read(item.size)
                    else:
                        content = read_bytes(self.label(item))
                yield item, content
            except ImageError as error:
                yield item, error

    def _read_rows(self) -> Iterator[tuple[Item, bytes | ImageError]]:
        try:
            table = _parquet(self.path).read_row_group(self.group, columns=[self.column])
            rows = table.column(0)
            values = [rows[item.start].as_py() for item in self.items]
        except (OSError, ValueError, IndexError) as error:  # pyarrow's own are among these
            failed = ImageError(f"cannot read {self.path}: {' '.join(str(error).split())}")
            yield from ((item, failed) for item in self.items)
            return
        for item, value in zip(self.items, values, strict=True):
            content = value.get("bytes") if isinstance(value, dict) else value
            if content is None:
                yield item, ImageError(f"cannot read {self.label(item)}: the row holds no bytes")
            else:
                yield item, content


def list_pieces(
    paths: Iterable[Path], images: int, *, column: str | None = None
) -> tuple[list[Piece], list[tuple[str, ImageError]]]:
    """List images in pieces of about `images` images each.

    A piece ends where a digest of a name says so, so that a new image in a folder changes one
    piece and leaves the others as they are.

    Args:
        paths: image files, `.tar` and `.parquet` files, and folders of any of them.
        images: of a piece, in the mean; at most twice as many, and at most 256 MB.
        column: of Parquet files, that holds the images: encoded bytes, or a struct with `bytes`.
            None is `image`, or the only column that can.

    Returns:
        the pieces, and the inputs that cannot be read, each with its error.

    Raises:
        InvalidArgumentError: there is no image, or no such column.
        MissingExtraError: pyarrow is not installed, and there are Parquet files.
    """
    pieces: list[Piece] = []
    failed: list[tuple[str, ImageError]] = []
    given = list(dict.fromkeys(path.resolve() for path in paths))
    tables: list[Path] = []
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            pieces += _pieces(path, _sized(path, names_below(path)), images)
            tables += [path / name for name in names_below(path, (".tar", ".parquet"))]
        else:
            (tables if path.suffix in (".tar", ".parquet") else files).append(path)
    for parent, some in groupby(sorted(files), key=lambda path: path.parent):
        pieces += _pieces(parent, _sized(parent, [path.name for path in some]), images)
    for table in tables:
        try:
            if table.suffix == ".tar":
                found, error = _members(table)
                pieces += _pieces(table, found, images)
                if error is not None:
                    failed.append((str(table), error))
            else:
                pieces += _row_groups(table, images, column)
        except (OSError, ValueError) as problem:
            if isinstance(problem, InvalidArgumentError | MissingExtraError):
                raise
            refused = ImageError(f"cannot read {table}: {' '.join(str(problem).split())}")
            failed.append((str(table), refused))
    if not pieces and not failed:
        shown = ", ".join(map(str, paths))
        raise InvalidArgumentError(
            f"there are no images in {shown}: expected image files, .tar or .parquet files, or "
            f"folders of them (images end in {', '.join(IMAGE_SUFFIXES)})"
        )
    return pieces, failed


def names_below(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[str]:
    """List the images in a folder and the folders in it, by name, in order; hidden ones not."""
    found = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and path.is_file()
    )
    return [name for name in found if not any(part[0] == "." for part in name.split("/"))]


def _sized(folder: Path, names: Sequence[str]) -> list[Item]:
    def size(name: str) -> int:
        path = folder / name
        return path.stat().st_size if path.is_file() else 0  # reading says what is wrong

    return [Item(name, 0, size(name)) for name in names]


def _members(path: Path) -> tuple[list[Item], ImageError | None]:
    """List the images of a tar, and the error of one that is cut short."""
    found: list[Item] = []
    names: Counter[str] = Counter()
    try:
        for member in tar_members(path):
            name = PurePosixPath(member.name)
            if not member.isfile() or name.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            names[member.name] += 1  # a tar may hold several files of one name
            if names[member.name] > 1:
                name = name.with_stem(f"{name.stem}~{names[member.name]}")
            found.append(Item(str(name), member.offset_data, member.size))
    except tarfile.TarError as error:
        advice = "it must be whole and not compressed"
        return found, ImageError(f"cannot read {path}: {error}; {advice}")
    return found, None


def _pieces(
    path: Path, items: Iterable[Item], images: int, column: str = "", group: int = 0
) -> Iterator[Piece]:
    held: list[Item] = []
    size = 0
    for item in items:
        if held and size + item.size > _PIECE_BYTES:
            yield Piece(str(path), tuple(held), column, group)
            held, size = [], 0
        held.append(item)
        size += item.size
        if len(held) == 2 * images or crc32(item.name.encode()) % images == 0:
            yield Piece(str(path), tuple(held), column, group)
            held, size = [], 0
    if held:
        yield Piece(str(path), tuple(held), column, group)


def _row_groups(path: Path, images: int, column: str | None) -> Iterator[Piece]:
    """List the pieces of a Parquet file; none spans two row groups."""
    file = _parquet(path)
    name = _image_column(path, file.schema_arrow, column)
    first = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        places = (group.column(index) for index in range(group.num_columns))
        stored = sum(
            each.total_uncompressed_size
            for each in places
            if each.path_in_schema.split(".")[0] == name
        )
        size = stored // max(group.num_rows, 1)
        rows = range(group.num_rows)
        items = [Item(f"{path.stem}-{first + row}", row, size) for row in rows]
        yield from _pieces(path, items, images, name, number)
        first += group.num_rows


def _image_column(path: Path, schema: Any, column: str | None) -> str:
    arrow = import_module("pyarrow")

    def is_bytes(kind: Any) -> bool:
        return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))

    able = [
        field.name
        for field in schema
        if is_bytes(field.type)
        or (
            arrow.types.is_struct(field.type)
            and any(part.name == "bytes" and is_bytes(part.type) for part in field.type)
        )
    ]
    chosen = column or (_COLUMN if _COLUMN in able or len(able) != 1 else able[0])
    if chosen not in able:
        columns = ", ".join(able) or "none"
        raise InvalidArgumentError(
            f"{path} has no column {chosen!r} of images (encoded bytes, or a struct with `bytes`); "
            f"columns that could be: {columns}; name one with --column"
        )
    return chosen


def _parquet(path: str | Path) -> Any:
    purpose = "Parquet files need pyarrow"
    return import_extra("pyarrow.parquet", purpose, "kornia-ditf[ray]").ParquetFile(path)
