from __future__ import annotations

from pathlib import Path

import pytest

from kornia_ditf.errors import OutputError
from kornia_ditf.utils.cache import cache_folder, write_to_cache


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
