"""The built-in data sets, each one file that reads its published layout, registered by the hook."""

from __future__ import annotations

from kornia_ditf.datasets import (
    ap10k,
    davis,
    folder,
    hpatches,
    pfpascal,
    pfwillow,
    spair,
    synthetic,
)
from kornia_ditf.datasets.spec import DatasetSpec

SPECS: tuple[DatasetSpec, ...] = (
    spair.SPEC,
    ap10k.SPEC,
    pfpascal.SPEC,
    pfwillow.SPEC,
    hpatches.SPEC,
    davis.SPEC,
    folder.SPEC,
    synthetic.SPEC,
)
