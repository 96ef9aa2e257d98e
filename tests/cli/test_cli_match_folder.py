"""`kornia-ditf match-folder`, and the option --export of other commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pycolmap
from typer.testing import Result

Run = Callable[..., Result]
RunJson = Callable[..., Any]
SMALL = ("--long-side", 48)


def test_a_folder_is_matched_exported_and_resumed(
    run: Run, run_json: RunJson, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "d.png").write_bytes(b"no image")
    out = tmp_path / "out"
    exports = [word for suffix in ("db", "h5", "npz") for word in ("--export", out / f"x.{suffix}")]
    command = (
        "match-folder",
        tmp_path,
        "--out",
        out,
        *exports,
        "--min-inliers",
        0,
        "--min-share",
        0,
        *SMALL,
    )
    done = run_json(*command, code=3)
    assert done["images"] == ["a.png", "b.png", "c.png"]
    assert [each["image"] for each in done["failed"]] == ["d.png"]
    assert done["pairs"] == {"matched": 3, "resumed": 0, "weak": 0, "kept": 3}
    assert {Path(each).name for each in done["written"]} == {
        *("x.db", "x.h5", "x-matches.h5", "x-pairs.txt", "x.npz")
    }
    with pycolmap.Database.open(out / "x.db") as database:
        assert database.num_images() == 3 and database.num_keypoints() == done["keypoints"]
    before = (out / "x.npz").read_bytes()
    again = run(*command)
    assert again.exit_code == 3 and "0 matched now, 3 resumed" in again.stdout
    assert again.stderr.count("d.png") == 1 and (out / "x.npz").read_bytes() == before
    other = run_json(*command, "-o", "refined=false", code=3)
    assert other["pairs"]["matched"] == 3


def test_without_an_export_arrays_are_written(
    run_json: RunJson, images: list[Path], tmp_path: Path
) -> None:
    done = run_json(
        *("match-folder", tmp_path, "--out", tmp_path / "out", *SMALL, "--pairs", "sequential"),
        *("--count", 1),
    )
    assert done["pairs"]["matched"] == 2
    assert done["written"] == [str(tmp_path / "out" / "matches.npz")]


def test_an_export_of_no_known_format_is_refused_before_any_work(
    run: Run, images: list[Path], tmp_path: Path
) -> None:
    for command in (
        ("match-folder", tmp_path, "--out", tmp_path / "out"),
        ("match", *images[:2]),
        ("extract", images[0], "--out", tmp_path / "out"),
    ):
        result = run(*command, "--export", tmp_path / "x.txt")
        assert result.exit_code == 2 and "must end in .db, .h5, .npz or .json" in result.stderr


def test_two_images_are_exported_by_match(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    target = tmp_path / "ab.json"
    for kind in (("-b", model, "--search", "none"), ("--matcher", "sift")):
        found = run_json("match", *images[:2], *kind, *SMALL, "--export", target)
        written = json.loads(target.read_text())
        assert [each["name"] for each in written["images"]] == ["a.png", "b.png"]
        assert len(written["pairs"][0]["matches"]) == len(found["scores"])


def test_features_are_exported_by_extract_also_of_files_that_were_there(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    target = tmp_path / "features.h5"
    command = ("extract", *images, "-b", model, *SMALL, "--out", tmp_path / "out")
    for _ in range(2):
        done = run_json(*command, "--export", target)
        assert done["exported"] == [str(target)]
        with h5py.File(target) as file:
            assert set(file) == {"a.png", "b.png", "c.png"}
            tokens = np.prod((9, 12))
            assert file["a.png"]["descriptors"].shape[1] == tokens
        target.unlink()
