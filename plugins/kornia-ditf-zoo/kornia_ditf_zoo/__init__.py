"""More Diffusion Transformers of diffusers for kornia_ditf, each one short file of declarations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kornia_ditf import hookimpl

if TYPE_CHECKING:
    from kornia_ditf import BackboneSpec

KORNIA_DITF_API = 1


@hookimpl
def register_backbones() -> Iterable[BackboneSpec]:
    """Return the backbones that this plugin adds."""
    from kornia_ditf_zoo.catalogue import SPECS

    return SPECS
