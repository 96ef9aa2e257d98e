"""Former import path of `kornia_ditf.utils.images`."""

from kornia_ditf.utils.images import read_image, read_size

__all__ = ["read_image", "read_size"]
