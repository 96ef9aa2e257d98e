"""Descriptions of data sets, known before a file of one is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kornia_ditf.datasets.files import given_folder
from kornia_ditf.errors import DatasetError
from kornia_ditf.utils.checks import check_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """A data set: its loader, layout, source and licence.

    Args:
        name: what the user types.
        load: reads it; called with `root`, the folder that holds it, and the options that the
            user gave (`split` by convention). Returns a sequence of pairs or videos.
        layout: the files and folders that are expected below `root`, in words.
        source: how to get it.
        license: licence of the images and annotations.
        folder: the name under which its folder is published.
        inside: files and folders in that folder, or patterns of them, by which a copy is
            recognised; empty where it must be named.
        splits: the names that `split` takes, the usual one first.
        split_path: what holds a split, relative to the folder, with `{split}` for its name; empty
            where all are always there.
    """

    name: str
    load: Callable[..., Sequence[Any]]
    layout: str
    source: str
    license: str
    folder: str = ""
    inside: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test",)
    split_path: str = ""

    def __post_init__(self) -> None:
        check_spec(self, ("name", "layout", "source", "license"))

    def find(self, root: str | Path, split: str, inside: Sequence[str] = ()) -> Path:
        """Find the folder of a copy: the given one, or one of the published name in it.

        Args:
            root: what the user gave.
            split: what is wanted of it.
            inside: files or folders that it must hold; the spec's own where none are given.

        Raises:
            DatasetError: neither folder holds them, or the data set has no such split.
        """
        given, inside = given_folder(root), inside or self.inside
        found = self.recognise(given, inside)
        if not given.exists():
            raise DatasetError(
                given, f"there is no such folder; expected {self.folder}. {self.source}"
            )
        if found is None:
            near = given / self.folder if (given / self.folder).is_dir() else given
            missing = next(name for name in inside if not any(near.glob(name)))
            raise DatasetError(
                near / missing,
                f"it is not there, and {self.folder} has {', '.join(inside)}. {self.source}",
            )
        self.check_split(split, found)
        return found

    def recognise(self, root: Path, inside: Sequence[str] = ()) -> Path | None:
        """Return which of a folder, and one of the published name in it, holds all of `inside`."""
        inside = inside or self.inside
        places = (root, root / self.folder)
        return next((p for p in places if all(any(p.glob(name)) for name in inside)), None)

    def check_split(self, split: str, file: Path) -> None:
        """Raise DatasetError unless the data set has a split."""
        if split not in self.splits:
            raise DatasetError(file, f"it has no split {split!r}; known: {', '.join(self.splits)}")
