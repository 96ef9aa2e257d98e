"""Finding and reading the files of a data set; whatever is wrong with one is a `DatasetError`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from kornia_ditf.errors import DatasetError, InvalidArgumentError, MissingExtraError
from kornia_ditf.utils.cache import cache_folder, is_sound, write_checked
from kornia_ditf.utils.images import read_size


@contextmanager
def reading(path: Path, what: str, how: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into a DatasetError: that it is not there, or `what`."""
    try:
        yield
    except (DatasetError, MissingExtraError):
        raise
    except FileNotFoundError as error:
        raise DatasetError(path, f"there is no such file. {how}") from error
    except Exception as error:  # Decoders raise anything from OSError to struct.error.
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(path, f"{what} ({reason}). {how}") from error


def given_folder(root: str | Path) -> Path:
    """Return the folder that a user named.

    Raises:
        DatasetError: the name is empty or no name of a folder.
    """
    try:
        folder = Path(root).expanduser()
        folder.is_dir()
    except (OSError, RuntimeError) as error:
        raise DatasetError(root, f"it cannot be used ({error})") from error
    if not str(root):
        raise DatasetError(root, "the name of the folder is empty; type `.` for this one")
    return folder


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
"""What the names of image files end with."""


def list_images(root: str | Path, pattern: str = "*") -> list[Path]:
    """List the images of a folder, in alphabetical order; folders in it are not looked into.

    Raises:
        DatasetError: the folder is missing or holds no such image.
        InvalidArgumentError: the pattern is malformed.
    """
    folder = given_folder(root)
    if not folder.is_dir():
        raise DatasetError(folder, "there is no such folder")
    try:
        images = sorted(path for path in folder.glob(pattern) if path.suffix.lower() in SUFFIXES)
    except (ValueError, NotImplementedError) as error:
        raise InvalidArgumentError(f"pattern must be as in `*.jpg`, got {pattern!r}") from error
    if not images:
        raise DatasetError(folder, f"it holds no image {pattern} ({', '.join(SUFFIXES)})")
    return images


def path_inside(folder: Path, name: object, file: Path) -> Path:
    """Join a name from an annotation to the folder that it must not leave.

    Symbolic links in the folder are followed wherever they lead: people lay out data with them.

    Args:
        folder: where the named file belongs.
        name: a relative path, with slashes of either kind.
        file: the annotation, for messages.

    Raises:
        DatasetError: the name is not a string, is absolute, or leads outside of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise DatasetError(file, f"it must name a file, got {name!r}")
    inner = os.path.normpath(name.replace("\\", "/"))
    if inner.startswith(("/", "..")) or PureWindowsPath(inner).drive:
        raise DatasetError(
            file,
            f"it names {name!r}, which is not inside {folder}; move the file there, or link to its "
            "folder from there",
        )
    return folder / inner


def read_json(path: Path, keys: Mapping[str, type | tuple[type, ...]], how: str) -> dict[str, Any]:
    """Read a JSON object and check the type of each key that is needed."""
    values = parse_json(path, how)
    if not isinstance(values, dict):
        raise DatasetError(path, f"it must hold a JSON object, got a {type(values).__name__}")
    for key, kind in keys.items():
        if key not in values:
            raise DatasetError(path, f"it has no {key!r}; expected {', '.join(keys)}")
        if not isinstance(values[key], kind) or isinstance(values[key], bool):
            raise DatasetError(path, f"{key!r} has a wrong value: {str(values[key])[:60]!r}")
    return values


def parse_json(path: Path, how: str) -> Any:
    """Read any JSON value."""
    with reading(path, "it is not JSON", how):
        return json.loads(read_text(path, how))


def read_csv(path: Path, columns: tuple[str, ...], how: str) -> list[dict[str, str]]:
    """Read the rows of a CSV file with a line of headings; missing cells are empty."""
    head, *rows = read_rows(path, how)
    missing = [name for name in columns if name not in head]
    if missing:
        raise DatasetError(
            path, f"it has no column {missing[0]!r}; expected {', '.join(columns)}. {how}"
        )
    return [dict.fromkeys(head, "") | dict(zip(head, row, strict=False)) for row in rows]


def read_rows(path: Path, how: str) -> list[list[str]]:
    """Read the cells of a CSV file, headings first, without empty lines."""
    with reading(path, "it is not CSV", how):
        rows = [row for row in csv.reader(read_text(path, how).splitlines()) if row]
    if len(rows) < 2:
        raise DatasetError(path, f"it has no rows. {how}")
    return rows


def read_text(path: Path, how: str) -> str:
    """Read a text file."""
    with reading(path, "it cannot be read", how):
        return path.read_text("utf-8")


def read_words(path: Path, columns: Mapping[str, Callable[[str], Any]], how: str) -> list[Any]:
    """Read a text file of words in columns, as tuples; empty lines are left out.

    Args:
        path: the file.
        columns: what each column is called, and the type of its words.
        how: how to get the file, for messages.

    Raises:
        DatasetError: the file is missing, or a line has other words.
    """
    rows = []
    for number, line in enumerate(read_text(path, how).splitlines(), 1):
        words, kinds = line.split(), columns.values()
        if words:
            with reading(path, f"line {number}: expected {' '.join(columns)}", how):
                rows.append(tuple(kind(word) for kind, word in zip(kinds, words, strict=True)))
    return rows


def cached_picture(name: str, make: Callable[[], npt.NDArray[Any]]) -> Path:
    """Return the path of a PNG in the cache; it is made where it is missing or damaged.

    Args:
        name: the file below the cache's folder.
        make: returns the picture, shape (H, W, 3), RGB in [0, 1].
    """
    from PIL import Image

    target = cache_folder() / name
    if not is_sound(target):
        pixels = np.clip(np.round(make() * 255), 0, 255).astype(np.uint8)
        with write_checked(target) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
    return target


def is_file(path: Path) -> bool:
    """Whether a file is there; False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def image_size(path: Path, how: str, *, upright: bool = False) -> tuple[int, int]:
    """Read the height and width of an image from its header, as stored unless `upright`."""
    if not is_file(path):
        raise DatasetError(path, f"there is no such image. {how}")
    with reading(path, "it is no usable image", how):
        return read_size(path, upright=upright)


def annotated_image(path: Path, size: tuple[int, int], how: str) -> Path:
    """Return the path of an image whose size an annotation states, as stored or upright.

    Raises:
        DatasetError: it is missing, is not an image, or has another size.
    """
    stored = image_size(path, how)
    if size != stored and size != image_size(path, how, upright=True):
        raise DatasetError(path, f"it has {as_pixels(stored)}, annotations say {as_pixels(size)}")
    return path


def as_pixels(size: tuple[int, int]) -> str:
    """Write a (height, width) as `width x height pixels`."""
    return f"{size[1]} x {size[0]} pixels"


def folders(path: Path) -> list[str]:
    """List the names of the folders in a folder, sorted; hidden ones are left out."""
    with reading(path, "it cannot be read", ""):
        return sorted(each.name for each in path.iterdir() if each.is_dir() and each.name[0] != ".")
