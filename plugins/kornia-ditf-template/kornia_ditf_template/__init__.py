"""Lumina-Next for kornia_ditf; a plugin to copy (docs/tutorial.md builds it step by step)."""

from __future__ import annotations

from kornia_ditf import BackboneSpec, hookimpl
from kornia_ditf_template.lumina import LUMINA_NEXT

KORNIA_DITF_API = 1


@hookimpl
def register_backbones() -> list[BackboneSpec]:
    """Give the backbones of this plugin."""
    return [LUMINA_NEXT]
