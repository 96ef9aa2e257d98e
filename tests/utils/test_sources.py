"""Images in folders, tars and Parquet files, in pieces."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kornia_ditf.errors import ImageError, InvalidArgumentError, MissingExtraError
from kornia_ditf.utils.sources import Piece, list_pieces


@pytest.fixture
def contents() -> dict[str, bytes]:
    return {f"{number}.png": f"content {number}".encode() for number in range(40)}


@pytest.fixture
def folder(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    folder = tmp_path / "images"
    for name, content in contents.items():
        path = folder / ("odd" if int(name[:-4]) % 2 else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_tar(path: Path, contents: dict[str, bytes], folder: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in contents:
            tar.add(next(folder.rglob(name)), name)
            (folder / "label.cls").write_text("3")
            tar.add(folder / "label.cls", f"{name[:-4]}.cls")
    return path


def read(pieces: list[Piece]) -> dict[str, Any]:
    return {item.name: content for piece in pieces for item, content in piece.read()}


def test_every_kind_of_source_gives_every_image_once(
    tmp_path: Path, folder: Path, contents: dict[str, bytes]
) -> None:
    rows = [{"bytes": content, "path": name} for name, content in contents.items()]
    columns = {"label": list(range(40)), "image": rows}
    pq.write_table(pa.table(columns), tmp_path / "all.parquet", row_group_size=15)
    tar = write_tar(tmp_path / "all.tar", contents, folder)
    for source, name in ((folder, None), (tar, "{}.png"), (tmp_path / "all.parquet", "all-{}")):
        pieces, failed = list_pieces([source], 4)
        found = [(item.name, content) for piece in pieces for item, content in piece.read()]
        assert not failed and len(found) == 40
        assert all(len(piece.items) <= 8 for piece in pieces) and len(pieces) > 5
        if name is not None:
            expected = {name.format(each[:-4]): content for each, content in contents.items()}
            assert dict(found) == expected
        assert [Piece.from_json(piece.to_json()) for piece in pieces] == pieces
    assert {Path(name).name: content for name, content in read(list_pieces([folder], 4)[0]).items()}
    both, _ = list_pieces([folder, tar, *sorted(folder.glob("*.png"))], 4)
    assert sum(len(piece.items) for piece in both) == 40 + 40 + 20


def test_a_new_image_changes_one_piece_and_leaves_the_others(folder: Path) -> None:
    before = {tuple(i.name for i in piece.items) for piece in list_pieces([folder], 4)[0]}
    (folder / "1a.png").write_bytes(b"new")
    after = {tuple(i.name for i in piece.items) for piece in list_pieces([folder], 4)[0]}
    assert len(after - before) <= 2 and len(before - after) == 1


def test_what_cannot_be_read_is_named_and_the_rest_is_given(
    tmp_path: Path, folder: Path, contents: dict[str, bytes]
) -> None:
    tar = write_tar(tmp_path / "cut.tar", contents, folder)
    tar.write_bytes(tar.read_bytes()[: 1024 * 30 + 100])
    (tmp_path / "empty.tar").touch()
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no more")
    missing = tmp_path / "missing.png"
    inputs = [tar, tmp_path / "empty.tar", tmp_path / "no.parquet", missing]
    pieces, failed = list_pieces(inputs, 4)
    assert [Path(label).name for label, _ in failed] == ["cut.tar", "empty.tar", "no.parquet"]
    assert all(label in str(error) for label, error in failed)
    found = read(pieces)
    assert isinstance(found.pop("missing.png"), ImageError)
    assert found and found == {name: contents[name] for name in found}


def test_rows_without_bytes_and_names_that_repeat_are_told_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [b"a", None]}), tmp_path / "some.parquet")
    found = read(list_pieces([tmp_path / "some.parquet"], 4)[0])
    assert found["some-0"] == b"a" and isinstance(found["some-1"], ImageError)
    (tmp_path / "a.png").write_bytes(b"first")
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "a.png")
        (tmp_path / "a.png").write_bytes(b"other")
        tar.add(tmp_path / "a.png", "a.png")
    assert read(list_pieces([tmp_path / "twice.tar"], 4)[0]) == {
        "a.png": b"first",
        "a~2.png": b"other",
    }


def test_the_column_of_images_is_found_or_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "two.parquet"
    pq.write_table(pa.table({"left": [b"a"], "right": [b"b"], "text": ["c"]}), path)
    with pytest.raises(InvalidArgumentError, match="columns that could be: left, right; name one"):
        list_pieces([path], 4)
    assert read(list_pieces([path], 4, column="right")[0]) == {"two-0": b"b"}
    with pytest.raises(InvalidArgumentError, match="no column 'text' of images"):
        list_pieces([path], 4, column="text")


def test_nothing_to_read_and_a_missing_library_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"there are no images in .*\.parquet files"):
        list_pieces([tmp_path], 4)
    pq.write_table(pa.table({"image": [b"a"]}), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kornia-ditf\[ray\]'"):
        list_pieces([tmp_path / "a.parquet"], 4)
