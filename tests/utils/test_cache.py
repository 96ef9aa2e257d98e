from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from kornia_ditf.errors import OutputError
from kornia_ditf.utils import cache
from kornia_ditf.utils.cache import cache_folder, is_sound, write_checked, write_to_cache


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("KORNIA_DITF_CACHE")
    assert "kornia-ditf" in str(cache_folder())


def test_asking_for_the_folder_does_not_make_it() -> None:
    assert not cache_folder().exists()


def test_a_file_is_written_into_folders_that_did_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    with write_to_cache(path) as temporary:
        temporary.write_text("{}")
    assert path.read_text() == "{}"
    assert [file.name for file in path.parent.iterdir()] == ["c.json"]


def test_a_cache_that_cannot_be_written_says_how_to_name_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="KORNIA_DITF_CACHE"),
        write_to_cache(tmp_path / "file" / "c.json"),
    ):
        pass


def test_without_a_home_folder_the_cache_is_a_temporary_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "KORNIA_DITF_CACHE"):
        monkeypatch.delenv(name, raising=False)
    cache._homeless_folder.cache_clear()
    folder = cache_folder()
    assert folder.is_absolute() and folder == cache_folder()
    cache._homeless_folder().cleanup()
    cache._homeless_folder.cache_clear()


def test_a_home_that_is_not_there_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(OutputError, match="KORNIA_DITF_CACHE='~nobody-of-that-name/cache'"):
        cache_folder()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: os.truncate(path, 3), "checksum is wrong"),
        (lambda path: path.write_text("other"), "checksum is wrong"),
        (lambda path: path.with_suffix(".sha256").unlink(), "checksum is missing"),
        (lambda path: path.with_suffix(".sha256").write_text(""), "checksum is wrong"),
        (lambda path: path.with_suffix(".sha256").write_bytes(b"\xff"), "decode"),
    ],
)
def test_a_file_that_was_changed_is_named_and_not_believed(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Path], object],
    reason: str,
) -> None:
    path = tmp_path / "kept" / "values.json"
    assert not is_sound(path)
    with write_checked(path) as temporary:
        temporary.write_text("values")
    assert is_sound(path)
    assert not caplog.records
    change(path)
    with caplog.at_level(logging.WARNING):
        assert not is_sound(path)
    assert "values.json is damaged" in caplog.text and reason in caplog.text


@pytest.mark.parametrize("name", ["file/c.json", f"{'n' * 256}/c.json"])
def test_a_cache_where_no_file_can_be_holds_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    (tmp_path / "file").write_text("")
    assert not is_sound(tmp_path / name)
    assert "damaged" not in caplog.text
