"""DINO, DINOv2 and DINOv3 as dense descriptors for kornia_ditf; the weights are loaded on use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kornia_ditf import hookimpl

if TYPE_CHECKING:
    from kornia_ditf import DescriptorSpec

KORNIA_DITF_API = 1


@hookimpl
def register_descriptors() -> Iterable[DescriptorSpec]:
    """Return the descriptors that this plugin adds."""
    from kornia_ditf_dino.catalogue import SPECS

    return SPECS
