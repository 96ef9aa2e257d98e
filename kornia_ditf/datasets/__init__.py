"""The built-in data sets, each read from its published layout."""

from __future__ import annotations

from kornia_ditf.datasets import (
    ap10k,
    davis,
    folder,
    hpatches,
    posed,
    proposalflow,
    spair,
    synthetic,
)
from kornia_ditf.datasets.spec import DatasetSpec

SPECS: tuple[DatasetSpec, ...] = (
    spair.SPEC,
    ap10k.SPEC,
    proposalflow.PASCAL_SPEC,
    proposalflow.WILLOW_SPEC,
    hpatches.SPEC,
    davis.SPEC,
    posed.SPEC,
    folder.SPEC,
    synthetic.SPEC,
)
