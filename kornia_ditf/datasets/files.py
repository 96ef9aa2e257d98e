"""Paths in, their content out; what is missing or malformed is one `DatasetError`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kornia_ditf.errors import DatasetError, ImageError
from kornia_ditf.utils.images import read_size


def find_root(root: str | Path, folder: str, inside: tuple[str, ...], how: str) -> Path:
    """Find the folder that holds a set: the given one, or one of the published name in it.

    Args:
        root: what the user gave.
        folder: the name under which the set is published.
        inside: files or folders, or patterns of them, all of which it must hold.
        how: how to get the set.

    Raises:
        DatasetError: neither holds them.
    """
    given = Path(root).expanduser()
    for place in (given, given / folder):
        if all(any(place.glob(name)) for name in inside):
            return place
    near = given / folder if (given / folder).is_dir() else given
    missing = [name for name in inside if not any(near.glob(name))]
    if not given.exists():
        raise DatasetError(given, f"there is no such folder; expected {folder}. {how}")
    raise DatasetError(
        near / missing[0], f"it is not there, and {folder} has {', '.join(inside)}. {how}"
    )


def read_json(path: Path, keys: Mapping[str, type | tuple[type, ...]], how: str) -> dict[str, Any]:
    """Read a JSON object and check the keys that are needed of it.

    Raises:
        DatasetError: the file is missing, no JSON object, or lacks a key.
    """
    try:
        values = json.loads(read_text(path, how))
    except ValueError as error:
        raise DatasetError(path, f"it is no JSON ({error}). {how}") from error
    if not isinstance(values, dict):
        raise DatasetError(path, f"it must hold a JSON object, got a {type(values).__name__}")
    for key, kind in keys.items():
        if key not in values:
            raise DatasetError(path, f"it has no {key!r}; expected {', '.join(keys)}")
        if not isinstance(values[key], kind) or isinstance(values[key], bool):
            raise DatasetError(path, f"{key!r} has a wrong value: {str(values[key])[:60]!r}")
    return values


def read_csv(path: Path, columns: tuple[str, ...], how: str) -> list[dict[str, str]]:
    """Read the rows of a CSV file with a line of headings.

    Raises:
        DatasetError: it is missing, lacks a column, or has no rows.
    """
    rows = csv.DictReader(read_text(path, how).splitlines(), restval="")
    missing = [name for name in columns if name not in (rows.fieldnames or ())]
    if missing:
        raise DatasetError(
            path, f"it has no column {missing[0]!r}; expected {', '.join(columns)}. {how}"
        )
    found = list(rows)
    if not found:
        raise DatasetError(path, f"it has no rows. {how}")
    return found


def read_text(path: Path, how: str) -> str:
    """Read a text file.

    Raises:
        DatasetError: it is missing, unreadable or no text.
    """
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DatasetError(path, f"there is no such file. {how}") from error
    except (OSError, ValueError) as error:
        raise DatasetError(path, f"it cannot be read ({error}). {how}") from error


def image_size(path: Path, how: str) -> tuple[int, int]:
    """Read the height and width of an image from its header.

    Raises:
        DatasetError: it is missing or no image.
    """
    if not path.is_file():
        raise DatasetError(path, f"there is no such image. {how}")
    try:
        return read_size(path)
    except ImageError as error:
        raise DatasetError(path, f"it is no usable image ({error}). {how}") from error


def folders(path: Path) -> list[str]:
    """List the names of the folders in a folder, sorted; hidden ones are left out."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
