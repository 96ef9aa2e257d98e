"""The built-in data sets, each read from its published layout."""

from __future__ import annotations

from kornia_ditf.datasets import (
    ap10k,
    cub,
    davis,
    folder,
    hpatches,
    jhmdb,
    navi,
    posed,
    proposalflow,
    spair,
    synthetic,
    tss,
)
from kornia_ditf.datasets.spec import DatasetSpec

SPECS: tuple[DatasetSpec, ...] = (
    spair.SPEC,
    spair.UNSEEN_SPEC,
    ap10k.SPEC,
    proposalflow.PASCAL_SPEC,
    proposalflow.WILLOW_SPEC,
    tss.SPEC,
    cub.SPEC,
    jhmdb.SPEC,
    navi.SPEC,
    hpatches.SPEC,
    davis.SPEC,
    posed.SPEC,
    folder.SPEC,
    synthetic.SPEC,
)
