"""Lumina-Next for kornia_ditf; a plugin to copy (docs/tutorial.md builds it step by step)."""

from kornia_ditf import hookimpl
from kornia_ditf_template.lumina import LUMINA_NEXT


@hookimpl
def register_backbones():
    """Return the backbones of this plugin."""
    return [LUMINA_NEXT]
