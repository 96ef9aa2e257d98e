"""Descriptions of data sets, known before a file of one is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def check_split(self, split: str, file: Path) -> None:
        """Raise DatasetError unless the data set has a split."""
        if split not in self.splits:
            raise DatasetError(file, f"it has no split {split!r}; known: {', '.join(self.splits)}")
