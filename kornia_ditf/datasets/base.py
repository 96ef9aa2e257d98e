"""What all data sets share: items that are read when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from kornia_ditf.errors import DatasetError

Item = TypeVar("Item")


class Dataset(Sequence[Item]):
    """A sequence of pairs or videos, which are read when they are taken; see `PairDataset`."""

    def __init__(self, name: str, root: Path, split: str, entries: Sequence[Any] = ()) -> None:
        self.name, self.root, self.split, self.entries = name, root, split, entries

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names that items count under, sorted."""
        return tuple(sorted({self.category(index) for index in range(len(self))}))

    def category(self, index: int) -> str:
        """Return what an item counts under; without reading its files, where a list says so."""
        return "all"

    @abstractmethod
    def read(self, index: int) -> Item:
        """Read one item, index in [0, len).

        Raises:
            DatasetError: a file of it is missing or malformed.
        """

    @abstractmethod
    def images(self) -> dict[Path, str]:
        """List each image once, in order, with its label for prompts.

        Raises:
            DatasetError: an item cannot be read.
        """

    def defects(self) -> Iterator[DatasetError]:
        """Yield what is wrong with files that reading items does not touch."""
        return iter(())

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self.read(each) for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        return self.read(index % len(self))

    def __iter__(self) -> Iterator[Item]:
        return (self.read(index) for index in range(len(self)))
