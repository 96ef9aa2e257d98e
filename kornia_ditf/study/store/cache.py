"""A cache of descriptor maps on disk, checked by digests."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.matching.keypoints import Target, prepare_target
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.types.descriptors import read_map
from kornia_ditf.utils.cache import write_to_cache
from kornia_ditf.utils.files import save_sealed
from kornia_ditf.utils.provenance import memory_bytes

_FORMAT = 2  # 2: noise is drawn per image; records name images by their path in the data set
_LEAST_BYTES, _MOST_BYTES = 128 * 2**20, 4 * 10**9

Kept = TypeVar("Kept", DescriptorMap, Target)


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
    """Reads maps to a device, and keeps the latest ones there up to a limit.

    Args:
        cache: where the maps lie.
        limit_bytes: of the maps that are kept; one is kept at least. None is half of what is free
            on a CUDA device, and elsewhere a sixteenth of the machine's memory up to 4 GB: the
            images of a category of SPair-71k, for which each is read once.
    """

    def __init__(self, cache: MapCache, limit_bytes: int | None = None) -> None:
        self.cache, self.limit_bytes = cache, limit_bytes
        self._kept: OrderedDict[tuple[Any, ...], tuple[DescriptorMap | Target, int]] = OrderedDict()
        self._bytes = 0

    def map(self, key: str, place: torch.device) -> DescriptorMap:
        """Return a map on a device; raises as `MapCache.read` does."""
        return self._get((key, place), lambda read: read)

    def target(
        self, key: str, place: torch.device, size: tuple[int, int], *, pixels: bool
    ) -> Target:
        """Return a map prepared for keypoint transfer in an image of a size (height, width)."""

        def prepare(read: DescriptorMap) -> Target:
            framed = DescriptorMap(read.data, Frame(size, read.frame.model_size))
            return prepare_target(framed, pixels=pixels)

        return self._get((key, place, size, pixels), prepare)

    def _get(self, name: tuple[Any, ...], make: Callable[[DescriptorMap], Kept]) -> Kept:
        key, place, *_ = name
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name][0]  # type: ignore[return-value]
        if self.limit_bytes is None:
            self.limit_bytes = _share_of_memory(place)
        made = make(self.cache.read(key).to(place))
        held = made.data if isinstance(made, DescriptorMap) else made.tokens
        self._kept[name] = made, held.nbytes
        self._bytes += held.nbytes
        while self._bytes > self.limit_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        return made


def _share_of_memory(place: torch.device) -> int:
    if place.type == "cuda":
        return torch.cuda.mem_get_info(place)[0] // 2
    return max(_LEAST_BYTES, min(_MOST_BYTES, memory_bytes() // 16))
