"""Former import path of `kornia_ditf.study.store.cache`."""

from kornia_ditf.study.store.cache import MapCache

__all__ = ["MapCache"]
