"""Lumina-Next for kornia_ditf; a plugin to copy (docs/tutorial.md builds it step by step)."""

from kornia_ditf import hookimpl


@hookimpl
def register_backbones():
    """Return the backbones of this plugin."""
    from kornia_ditf_template.lumina import LUMINA_NEXT  # imported here: it loads torch

    return [LUMINA_NEXT]
