"""Finding data sets by name, and reading them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.registry.lookup import CATALOGUE, load_spec
from kornia_ditf.utils.checks import no_such


def list_datasets() -> dict[str, DatasetSpec]:
    """List the supported data sets by name."""
    return {spec.name: spec for spec in CATALOGUE.of(DatasetSpec)}


def find_dataset(name: str) -> DatasetSpec:
    """Find a data set's spec by its name.

    Raises:
        InvalidArgumentError: no data set has it.
    """
    known = list_datasets()
    if name not in known:
        raise InvalidArgumentError(no_such("data set", name, known))
    return known[name]


def load_dataset(name: str, root: str | Path, **options: Any) -> Sequence[Any]:
    """Load a data set by name: a `PairDataset`, or a `SequenceDataset` of videos.

    Args:
        name: an installed data set's.
        root: the folder that holds it.
        options: `split`, and those that the set has besides.

    Raises:
        InvalidArgumentError: there is no such data set, or it has no such option.
        DatasetError: a file is missing or malformed.

    Example:
        >>> pairs = load_dataset("folder", "examples/data")
        >>> len(pairs), pairs[0].size_a
        (2, (512, 640))
    """
    pairs: Sequence[Any] = load_spec(find_dataset(name), (root,), options)
    return pairs
