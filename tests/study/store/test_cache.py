"""Maps come back as they were kept, and damage never passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.study.store.cache import MapCache, MapReader, content_key
from kornia_ditf.types import DescriptorMap, Frame

CPU = torch.device("cpu")
KEY = content_key(image="a")


def a_map(seed: int = 0) -> DescriptorMap:
    generator = torch.Generator().manual_seed(seed)
    return DescriptorMap(torch.randn(1, 8, 3, 4, generator=generator), Frame((48, 64), (24, 32)))


def test_a_map_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = MapCache(tmp_path)
    cache.write(KEY, a_map())
    found = cache.read(KEY)
    assert torch.equal(found.data, a_map().data) and found.frame == a_map().frame


def test_halves_take_half_the_room_and_come_back_as_float32(tmp_path: Path) -> None:
    cache = MapCache(tmp_path, torch.float16)
    cache.write(KEY, a_map())
    found = cache.read(KEY).data
    assert found.dtype == torch.float32
    assert torch.equal(found, a_map().data.half().float())


def test_what_halves_cannot_hold_is_refused(tmp_path: Path) -> None:
    large = DescriptorMap(a_map().data * 1e6, a_map().frame)
    with pytest.raises(InvalidArgumentError, match="cache_dtype: float32"):
        MapCache(tmp_path, torch.float16).write(KEY, large)


def test_no_byte_can_change_without_notice(tmp_path: Path) -> None:
    cache = MapCache(tmp_path)
    cache.write(KEY, a_map())
    path = cache.path(KEY)
    whole = path.read_bytes()

    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        if whole[place : place + 1] == b" ":  # the header's padding holds nothing
            continue
        with pytest.raises(DamagedFileError, match=str(path)):
            cache.read(KEY)


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 500])
def test_what_is_no_map_is_damaged(tmp_path: Path, content: bytes) -> None:
    cache = MapCache(tmp_path)
    cache.path(KEY).parent.mkdir(parents=True)
    cache.path(KEY).write_bytes(content)
    with pytest.raises(DamagedFileError):
        cache.read(KEY)


def test_a_map_under_another_key_is_damaged(tmp_path: Path) -> None:
    cache, other = MapCache(tmp_path), content_key(image="b")
    cache.write(KEY, a_map())
    cache.path(other).parent.mkdir(parents=True, exist_ok=True)
    cache.path(KEY).rename(cache.path(other))
    with pytest.raises(DamagedFileError, match="checksum"):
        cache.read(other)


def test_a_reader_keeps_so_many_bytes_and_no_more(tmp_path: Path) -> None:
    cache = MapCache(tmp_path)
    keys = [content_key(image=seed) for seed in range(6)]
    for seed, key in enumerate(keys):
        cache.write(key, a_map(seed))
    reader = MapReader(cache, limit_bytes=2 * a_map().data.nbytes)
    for seed, key in enumerate(keys):
        assert torch.equal(reader.map(key, CPU).data, a_map(seed).data)
        assert len(reader._kept) <= 2
    assert reader.map(keys[-1], CPU) is reader.map(keys[-1], CPU)


def test_a_map_is_prepared_once_for_all_pairs_that_it_is_in(tmp_path: Path) -> None:
    cache = MapCache(tmp_path)
    cache.write(KEY, a_map())
    reader = MapReader(cache)
    target = reader.target(KEY, CPU, (30, 40), pixels=True)
    assert target.frame.image_size == (30, 40)
    assert torch.equal(target.descriptors.data, a_map().data)
    assert reader.target(KEY, CPU, (30, 40), pixels=True) is target


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=4))
def test_keys_tell_apart_what_differs(parts: dict[str, int]) -> None:
    assert content_key(parts=parts) == content_key(parts=dict(reversed(parts.items())))
    assert content_key(parts=parts) != content_key(parts={**parts, "more": 1})
