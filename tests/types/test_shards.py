"""Shards of descriptors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kornia_ditf import DescriptorMap, Frame, read_shards
from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.types.shards import list_stored, member_name, write_shard


def stored(folder: Path, number: int, **about: object) -> tuple[DescriptorMap, bytes]:
    generator = torch.Generator().manual_seed(number)
    described = DescriptorMap(torch.randn(1, 3, 2, 2, generator=generator), Frame((8, 8), (8, 8)))
    described.save(folder / "one.safetensors", about)
    content = (folder / "one.safetensors").read_bytes()
    (folder / "one.safetensors").unlink()
    return described, content


def test_shards_give_back_every_map_once(tmp_path: Path) -> None:
    maps = {f"{n}.jpg": stored(tmp_path, n, image_sha256=str(n)) for n in range(4)}
    shards = tmp_path / "shards"
    shards.mkdir()
    files = [(name, content) for name, (_, content) in maps.items()]
    write_shard(shards / "a.tar", files[:3])
    write_shard(shards / "b.tar", files[2:])  # as of a folder that has grown
    changed = stored(tmp_path, 9, image_sha256="other")
    write_shard(shards / "c.tar", [("3.jpg", changed[1])])
    found = list(read_shards(shards))
    assert [name for name, _ in found] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "3.jpg"]
    expected = [*(described for described, _ in maps.values()), changed[0]]
    for (_, described), whole in zip(found, expected, strict=True):
        assert torch.equal(described.data, whole.data)
    assert [name for name, _ in read_shards(shards / "b.tar")] == ["2.jpg", "3.jpg"]
    assert list_stored(shards)[0].about()["image_sha256"] == "0"


def test_equal_files_give_equal_shards_that_unpack_below_their_folder(tmp_path: Path) -> None:
    _, content = stored(tmp_path, 0)
    for name in "ab":
        write_shard(tmp_path / f"{name}.tar", [("../x/y.png", content)])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert [each.member for each in list_stored(tmp_path / "a.tar")] == ["x/y.png.safetensors"]
    assert member_name("/etc/./a.png") == "etc/a.png.safetensors"


def test_a_shard_that_was_changed_or_cut_is_refused_by_name(tmp_path: Path) -> None:
    files = [(f"{n}.jpg", stored(tmp_path, n)[1]) for n in range(3)]
    path = tmp_path / "a.tar"
    write_shard(path, files)
    whole = path.read_bytes()
    path.write_bytes(whole[:1500])
    with pytest.raises(DamagedFileError, match=r"a\.tar"):
        list(read_shards(tmp_path))
    where = list_stored_offset(path, whole)
    path.write_bytes(whole[:where] + b"\xff" + whole[where + 1 :])
    with pytest.raises(DamagedFileError, match=r"a\.tar/1\.jpg\.safetensors"):
        list(read_shards(tmp_path))
    with pytest.raises(InvalidArgumentError, match="there are no descriptors in"):
        list(read_shards(tmp_path / "none"))


def list_stored_offset(path: Path, whole: bytes) -> int:
    """Give the place of the last byte of the second image's descriptors."""
    path.write_bytes(whole)
    second = list_stored(path)[1]
    return second.offset + second.size - 1
