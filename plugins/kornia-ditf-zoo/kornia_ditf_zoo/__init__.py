"""More Diffusion Transformers of diffusers for kornia_ditf, each one short file of declarations."""

from __future__ import annotations

from collections.abc import Iterable

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.registry.hookspecs import hookimpl


@hookimpl
def register_backbones() -> Iterable[BackboneSpec]:
    """Give the backbones that this plugin adds."""
    from kornia_ditf_zoo.catalogue import SPECS

    return SPECS
