"""A file appears whole or not at all, and every failure is one OutputError that names it."""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from kornia_ditf.errors import DiTFError, OutputError
from kornia_ditf.utils.files import atomic_write, save_tensors, sweep


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_the_file_appears_only_when_the_block_has_succeeded(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    with atomic_write(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
        assert temporary.parent == tmp_path and temporary.suffix == ".png"
    assert target.read_bytes() == b"whole"
    assert names(tmp_path) == {"picture.png"}


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file_and_no_other(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    target = tmp_path / "old.json"
    target.write_text("old")
    with pytest.raises(failure), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert names(tmp_path) == {"old.json"}


def test_the_result_has_the_permissions_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    with atomic_write(tmp_path / "result"):
        pass
    assert (tmp_path / "result").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "folder" / "real")
    with atomic_write(link) as temporary:
        temporary.write_text("through")
    assert link.is_symlink()
    assert (tmp_path / "folder" / "real").read_text() == "through"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (".", "add a file name"),
        ("missing/result.json", "mkdir -p"),
        ("n" * 300, "another name"),
        ("nul\0byte", "another name"),
        ("pipe", "not a regular file"),
    ],
)
def test_a_path_that_cannot_be_written_is_an_output_error_that_says_what_to_do(
    tmp_path: Path, name: str, hint: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match=hint), atomic_write(tmp_path / name):
        pytest.fail("the block must not run")
    assert names(tmp_path) == {"pipe"}


def test_a_folder_that_may_not_be_written_to_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As root every folder may be written to, so the refusal is played.
    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    problem = r"result\.json.*Permission denied.*may write to"
    with pytest.raises(OutputError, match=problem), atomic_write(tmp_path / "result.json"):
        pytest.fail("the block must not run")


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    problem = r"result\.json.*No space left.*free some space"
    with pytest.raises(OutputError, match=problem), atomic_write(tmp_path / "result.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == set()


def test_another_error_of_the_block_keeps_its_own_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "result.json"):
        (tmp_path / "input.json").read_text()
    assert not isinstance(caught.value, DiTFError)
    assert names(tmp_path) == set()


def test_what_a_killed_writer_left_is_swept_and_what_a_live_one_writes_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "deep").mkdir()
    child = os.fork()
    if not child:
        with atomic_write(tmp_path / "deep" / "result.json"):
            time.sleep(60)
        os._exit(0)
    while not names(tmp_path / "deep"):
        time.sleep(0.01)
    with atomic_write(tmp_path / "mine") as temporary:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sweep(tmp_path)
        assert temporary.exists()
    assert names(tmp_path / "deep") == set()


def test_only_files_named_as_temporary_ones_are_swept(tmp_path: Path) -> None:
    for name in (".hidden", ".gitignore", "0123456789abcdef.json", ".0123456789abcdef0.json"):
        (tmp_path / name).touch()
    (tmp_path / ".0123456789abcdef").mkdir()
    before = names(tmp_path)
    sweep(tmp_path)
    assert names(tmp_path) == before


def test_tensors_come_back_from_files_that_are_equal_byte_for_byte(tmp_path: Path) -> None:
    tensors = {"b": torch.rand(3, 2), "a": torch.rand(4).to(torch.bfloat16)}
    metadata = {name: name * 3 for name in "zyxwvutsrqponm"}
    contents = set()
    for number in range(8):
        save_tensors(tmp_path / str(number), tensors, metadata)
        contents.add((tmp_path / str(number)).read_bytes())
    assert len(contents) == 1
    with safe_open(tmp_path / "0", "pt") as file:
        assert file.metadata() == metadata
        assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in tensors)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_the_umask_decides_who_may_read_tensors(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "map.safetensors") as temporary:
            save_tensors(temporary, {"data": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    mode = stat.S_IMODE((tmp_path / "map.safetensors").stat().st_mode)
    assert mode == 0o666 & ~umask
