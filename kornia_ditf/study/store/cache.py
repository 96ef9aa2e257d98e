"""A cache of descriptor maps on disk, checked by digests."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.types import DescriptorMap
from kornia_ditf.types.descriptors import read_map
from kornia_ditf.utils.cache import write_to_cache
from kornia_ditf.utils.files import save_sealed

_FORMAT = 2  # 2: noise is drawn per image; records name images by their path in the data set
_DEFAULT_BYTES = 128 * 2**20


def content_key(**parts: Any) -> str:
    """Return a digest of everything that decides a result.

    Example:
        >>> content_key(image="ab", prompt="a cat") == content_key(prompt="a cat", image="ab")
        True
    """
    text = json.dumps({"format": _FORMAT, **parts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class MapCache:
    """A folder of descriptor maps, one safetensors file each, named by content keys.

    Args:
        folder: where they lie; made when first needed.
        dtype: of the stored descriptors.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.folder, self.dtype = folder, dtype

    def path(self, key: str) -> Path:
        """Return the path of a map, which may not exist."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Whether a map exists; `read` checks whether it is sound."""
        try:
            return self.path(key).is_file()
        except OSError:  # its folder cannot be read
            return False

    def write(self, key: str, descriptors: DescriptorMap) -> None:
        """Write the map of one image atomically.

        Raises:
            InvalidArgumentError: the cache's dtype cannot hold a value.
            OutputError: the folder cannot be written, or the disk is full.
        """
        data = descriptors.data.detach().to("cpu", self.dtype).contiguous()
        if not bool(torch.isfinite(data).all()):
            raise InvalidArgumentError(
                f"descriptors hold values that {self.dtype} cannot; set cache_dtype: float32, or "
                "look for NaN in the descriptor"
            )
        with write_to_cache(self.path(key)) as temporary:
            stored = replace(descriptors, data=data)
            save_sealed(temporary, {"descriptors": data}, {**stored.about(), "key": key})

    def read(self, key: str) -> DescriptorMap:
        """Read a map and check it against its digest.

        Returns:
            the map with B = 1, float32.

        Raises:
            DamagedFileError: the file is missing or does not hold what was written.
        """
        path = self.path(key)
        try:
            descriptors, about = read_map(path)
        except InvalidArgumentError as error:
            raise DamagedFileError(path, str(error)) from error
        if about.get("key") != key:
            raise DamagedFileError(path, "its checksum is of another key")
        return replace(descriptors, data=descriptors.data.float())


class MapReader:
    """Reads maps, and keeps the latest ones in memory up to a limit.

    Args:
        cache: where the maps lie.
        limit_bytes: of the maps that are kept; one is kept at least.
    """

    def __init__(self, cache: MapCache, limit_bytes: int = _DEFAULT_BYTES) -> None:
        self.cache, self.limit_bytes = cache, limit_bytes
        self._kept: OrderedDict[str, DescriptorMap] = OrderedDict()
        self._bytes = 0

    def __call__(self, key: str) -> DescriptorMap:
        """Return a map; raises as `MapCache.read` does."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        descriptors = self.cache.read(key)
        self._kept[key] = descriptors
        self._bytes += descriptors.data.nbytes
        while self._bytes > self.limit_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].data.nbytes
        return descriptors
