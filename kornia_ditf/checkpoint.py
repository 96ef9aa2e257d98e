"""Former import path of `kornia_ditf.loading.checkpoint`."""

from kornia_ditf.loading.checkpoint import Checkpoint

__all__ = ["Checkpoint"]
