"""`kornia-ditf extract --engine ray`: the worker, without a cluster, and what surrounds it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import write_blobs
from typer.testing import Result

from kornia_ditf.cli.describing import Request
from kornia_ditf.cli.options import Chosen
from kornia_ditf.cli.shards import Shard, ShardWriter
from kornia_ditf.types.shards import list_stored, read_shards
from kornia_ditf.utils.sources import Piece, list_pieces

Run = Callable[..., Result]
RunJson = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures of blobs in a folder and one in it."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for number in range(6):
        write_blobs(folder / ("in" if number % 2 else "") / f"{number}.png", generator)
    return folder


@pytest.fixture
def write(folder: Path, model: Path, tmp_path: Path) -> Callable[..., list[Any]]:
    """Write shards of about two pictures each, as the workers of a cluster do."""

    def write(out: str = "out", source: Path = folder, **changes: Any) -> list[Any]:
        overwrite = changes.pop("overwrite", False)
        (tmp_path / out).mkdir(exist_ok=True)
        chosen = Chosen({"backbone": str(model), "long_side": 48, **changes})
        request = Request(chosen, [], "float16", batch=1, overwrite=overwrite)
        pieces, _ = list_pieces([source], 2)
        writer = ShardWriter(request, tmp_path / out, pieces[:4])
        rows = {"piece": [piece.to_json() for piece in pieces]}
        return [json.loads(text) for text in writer(rows)["shard"]]

    return write


def test_a_shard_holds_the_files_that_extract_writes(
    run_json: RunJson, write: Any, folder: Path, model: Path, tmp_path: Path
) -> None:
    shards = write()
    assert sum(shard["images"] for shard in shards) == 6 and not any(s["failed"] for s in shards)
    paths = sorted(folder.rglob("*.png"))
    command = ("extract", *paths, "-b", model, "--long-side", 48, "--half", "--batch", 1)
    run_json(*command, "--out", tmp_path / "files")
    stored = {each.member: each for each in list_stored(tmp_path / "out")}
    assert len(stored) == 6
    for path in paths:
        each = stored[f"{path.relative_to(folder).as_posix()}.safetensors"]
        content = each.path.read_bytes()[each.offset : each.offset + each.size]
        assert content == (tmp_path / "files" / f"{path.stem}.safetensors").read_bytes()


def test_a_shard_that_is_there_is_not_written_again_and_names_follow_contents(
    write: Any, folder: Path, tmp_path: Path
) -> None:
    first = write()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = write()
    assert [s["name"] for s in again] == [s["name"] for s in first]
    assert not any(shard["written"] for shard in again)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert [s["name"] for s in write("other", moved)] == [s["name"] for s in first]
    shutil.copy(folder / "0.png", folder / "2.png")
    changed = write()
    assert sum(shard["written"] for shard in changed) == 1


def test_a_damaged_shard_is_written_anew_with_the_same_bytes(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "out" / write()[0]["name"]
    whole = path.read_bytes()
    path.write_bytes(whole[:700])
    assert [shard["written"] for shard in write()].count(True) == 1
    assert path.read_bytes() == whole


def test_bad_images_are_named_each_time_and_described_once_they_can_be(
    write: Any, folder: Path, tmp_path: Path
) -> None:
    (folder / "4.png").write_bytes(b"")
    (folder / "in" / "7.png").write_bytes(b"no picture")
    for _ in range(2):
        shards = write()
        failed = [each for shard in shards for each in shard["failed"]]
        assert sorted(Path(label).name for label, _, _ in failed) == ["4.png", "7.png"]
        assert all(code == 3 and label in message for label, code, message in failed)
        assert sum(shard["images"] for shard in shards) == 5
    shutil.copy(folder / "0.png", folder / "4.png")
    assert sum(shard["images"] for shard in write()) == 6


def test_shards_of_other_settings_are_kept_and_reported(write: Any, tmp_path: Path) -> None:
    write()
    refused = write(seed=1)
    assert refused[0]["error"][0] == 5
    assert "other settings (seed)" in refused[0]["error"][1]
    assert all(shard["error"] is None for shard in write(seed=1, overwrite=True))


def test_a_model_that_cannot_be_loaded_ends_the_work_with_its_own_error(write: Any) -> None:
    code, message = write(backbone="nowhere")[0]["error"]
    assert code == 4 and "nowhere" in message


def test_a_piece_that_workers_died_of_or_that_fits_no_memory_is_lost_and_leaves_no_note(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(Chosen({"backbone": str(model), "long_side": 48}), [], "float32")
    pieces, _ = list_pieces([folder], 2)
    (tmp_path / "out").mkdir()

    class Dead(BaseException):
        """The end of a process."""

    def die(path: Path, **_: object) -> None:
        raise Dead

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError

    first = pieces[:1]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)  # a process that is killed cleans up nothing
        patch.setattr(ShardWriter, "_tried", run_out)
        for _ in range(ShardWriter.tries):
            with pytest.raises(Dead):
                ShardWriter(request, tmp_path / "out", first).write(pieces[0])
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert ShardWriter(request, tmp_path / "out", first).write(pieces[0]).lost
    tried = ShardWriter(request, tmp_path / "out", None).write(pieces[0])
    assert tried == Shard()
    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "_tried", run_out)
        assert ShardWriter(request, tmp_path / "out", first).write(pieces[0]).lost
    assert not list((tmp_path / "out").iterdir())


def test_stored_descriptors_of_shards_are_matched(
    run: Run, write: Any, folder: Path, model: Path, tmp_path: Path
) -> None:
    write()
    query = ("extract", folder / "0.png", "-b", model, "--long-side", 48, "--half")
    assert run(*query, "--out", tmp_path / "query").exit_code == 0
    file, shards = tmp_path / "query" / "0.safetensors", tmp_path / "out"
    result = run("match", file, shards, "--json")
    assert result.exit_code == 0, result.stderr
    found = [json.loads(line)["images"]["b"]["path"] for line in result.stdout.splitlines()]
    assert sorted(found) == sorted(str(each) for each in list_stored(shards))
    one = run("match", file, next(shards.glob("*.tar")))
    assert one.exit_code == 0 and "matches" in one.stdout
    swapped = run("match", next(shards.glob("*.tar")), file)
    assert swapped.exit_code == 2 and "tar xf" in swapped.stderr
    assert {name.rpartition("/")[2] for name, _ in read_shards(shards)} == {
        f"{number}.png" for number in range(6)
    }


def test_the_plan_counts_images_and_bytes_without_ray(
    run: Run, run_json: RunJson, folder: Path, model: Path, tmp_path: Path
) -> None:
    command = ("extract", folder, "-b", model, "--long-side", 48, "--engine", "ray", "--plan")
    planned = run_json(*command, "--half", "--per-shard", 2, "--out", tmp_path / "out")
    encoded = [path.stat().st_size for path in folder.rglob("*.png")]
    pieces, _ = list_pieces([folder], 2)
    assert (planned["images"], planned["image_bytes"]) == (6, sum(encoded))
    assert planned["shards"] == len(pieces)
    assert planned["map_bytes"] == 6 * 9 * 12 * 32 * 2  # rows, columns, channels, bytes
    assert planned["weights_bytes"] > 0 and not (tmp_path / "out").exists()
    assert "6 (" in run(*command, "--out", tmp_path / "out").stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "spark"), "--engine must be"),
        (("--engine", "ray", "--export", "f.npz"), "--export takes files of single images"),
        (("--engine", "ray"), r"pip install 'kornia-ditf[ray]'"),
    ],
)
def test_wrong_options_and_a_missing_ray_are_one_line(
    options: tuple[str, ...],
    said: str,
    run: Run,
    folder: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("extract", folder, "-b", model, *options, "--out", tmp_path / "out")
    assert result.exit_code != 0 and result.stderr.count("error:") == 1
    assert said in result.stderr


def test_a_piece_is_named_by_all_that_decides_its_bytes(write: Any, folder: Path) -> None:
    names = {json.dumps(shard["name"]) for shard in (*write(), *write("other", seed=1))}
    pieces, _ = list_pieces([folder], 2)
    assert len(names) == 2 * len(pieces)
    assert all(len(json.loads(name)) == len(hashlib.md5().hexdigest()) + 4 for name in names)
    assert Piece.from_json(pieces[0].to_json()) == pieces[0]
