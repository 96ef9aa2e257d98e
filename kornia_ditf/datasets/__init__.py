"""The built-in data sets, each one file that reads its published layout, registered by the hook."""

from __future__ import annotations

from kornia_ditf.datasets import folder
from kornia_ditf.datasets.pairs import Pair, PairDataset
from kornia_ditf.spec import DatasetSpec

__all__ = ["SPECS", "Pair", "PairDataset"]

SPECS: tuple[DatasetSpec, ...] = (folder.SPEC,)
