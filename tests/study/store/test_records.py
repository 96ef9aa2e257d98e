"""Parts are whole or not there, and the final file does not depend on how they came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kornia_ditf.errors import DamagedFileError
from kornia_ditf.study.store.records import (
    done_keys,
    read_part,
    write_part,
    write_records,
)
from kornia_ditf.utils.cache import check_sound

NAMES = {"descriptor": "d", "dataset": "s", "protocol": "p"}


def row(key: str) -> dict[str, Any]:
    lists = ("points", "points_a", "found_b", "true_b", "distances", "alphas", "hits")
    return {
        "key": key,
        "pair": f"pair {key}",
        "category": "all",
        "image_a": "a",
        "image_b": "b",
        **{name: [] for name in lists},
        "base": 1.0,
        "scores": [],
    }


def test_a_part_is_named_by_what_it_holds(tmp_path: Path) -> None:
    one, other = write_part(tmp_path, [row("x")]), write_part(tmp_path, [row("x")])
    assert one == other and read_part(one).column("key").to_pylist() == ["x"]


def test_no_byte_of_a_part_can_change_without_notice(tmp_path: Path) -> None:
    path = write_part(tmp_path, [row("x")])
    whole = path.read_bytes()
    for place in range(0, len(whole), 17):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedFileError, match="checksum"):
            read_part(path)


def test_damaged_parts_are_told_and_removed(tmp_path: Path) -> None:
    write_part(tmp_path, [row("x"), row("y")])
    torn = write_part(tmp_path, [row("z")])
    torn.write_bytes(torn.read_bytes()[:-1])
    keys, damaged = done_keys(tmp_path)
    assert keys == {"x", "y"} and [error.path for error in damaged] == [torn]
    assert not torn.exists()


def test_the_final_file_is_the_same_however_its_parts_came_about(tmp_path: Path) -> None:
    pairs = [(0, "x"), (2, "z"), (1, "y"), (5, "z")]
    for place, parts in enumerate(([["x", "y", "z"]], [["z"], ["y"], ["y", "x"]])):
        folder = tmp_path / str(place)
        for part in parts:
            write_part(folder, [row(key) for key in part])
        write_records(tmp_path / f"{place}.parquet", [(NAMES, folder, pairs)])
    files = [tmp_path / f"{place}.parquet" for place in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    table = pq.read_table(files[0])
    assert table.column("index").to_pylist() == [0, 2, 1, 5]
    assert table.column("pair").to_pylist() == ["pair x", "pair z", "pair y", "pair z"]


def test_the_final_file_is_checked_against_its_checksum(tmp_path: Path) -> None:
    write_part(tmp_path / "parts", [row("x")])
    path = tmp_path / "records.parquet"
    write_records(path, [(NAMES, tmp_path / "parts", [(0, "x")])])
    check_sound(path)
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(DamagedFileError, match="records.parquet is damaged"):
        check_sound(path)
