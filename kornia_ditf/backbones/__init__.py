"""The built-in families, each one short file of declarations, registered as a plugin's are."""

from __future__ import annotations

from kornia_ditf.backbones import dit, flux, nano, pixart, sd3
from kornia_ditf.backbones.spec import BackboneSpec

SPECS: tuple[BackboneSpec, ...] = (
    *nano.SPECS,
    *dit.SPECS,
    *pixart.SPECS,
    *sd3.SPECS,
    *flux.SPECS,
)
