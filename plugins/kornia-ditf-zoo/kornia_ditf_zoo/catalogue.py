"""Every backbone of this package, family by family."""

from __future__ import annotations

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf_zoo import (
    auraflow,
    chroma,
    cogvideox,
    cogview,
    flux2,
    fluxlike,
    hidream,
    hunyuandit,
    ltx,
    lumina,
    prx,
    qwenimage,
    sana,
    wan,
    zimage,
)

SPECS: tuple[BackboneSpec, ...] = (
    *auraflow.SPECS,
    *hunyuandit.SPECS,
    *lumina.SPECS,
    *cogview.SPECS,
    *sana.SPECS,
    *qwenimage.SPECS,
    *zimage.SPECS,
    *chroma.SPECS,
    *flux2.SPECS,
    *fluxlike.SPECS,
    *hidream.SPECS,
    *prx.SPECS,
    *wan.SPECS,
    *ltx.SPECS,
    *cogvideox.SPECS,
)
