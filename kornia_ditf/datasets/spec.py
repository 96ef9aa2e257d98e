"""What is known of a data set before a file of it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kornia_ditf.utils.checks import check_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """All that is known of a data set of image pairs before a file of it is read.

    Args:
        name: what the user types.
        load: reads it; called with `root`, the folder that holds it, and the options that the
            user gave (`split` by convention). Gives a sequence of pairs.
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
