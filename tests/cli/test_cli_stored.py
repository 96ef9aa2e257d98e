"""`kornia-ditf match` of stored descriptors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

import kornia_ditf
from kornia_ditf.types import DescriptorMap

Run = Callable[..., Result]
RunJson = Callable[..., Any]


@pytest.fixture
def stored(run: Run, images: list[Path], model: Path, tmp_path: Path) -> Path:
    """A folder with the descriptors of the three pictures."""
    out = tmp_path / "stored"
    result = run("extract", *images, "-b", model, "--long-side", 48, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out


def test_two_files_are_matched_as_their_images_would_be(
    run: Run, run_json: RunJson, stored: Path, images: list[Path], model: Path, tmp_path: Path
) -> None:
    pair = (stored / "a.safetensors", stored / "b.safetensors")
    found = run_json("match", *pair)
    described = run_json("match", *images[:2], "-b", model, "--long-side", 48, "--search", "none")
    for name in ("points_a", "scores"):
        np.testing.assert_allclose(found[name], described[name], atol=1e-5)
    # Images may move points of B further, by their pixels, which files do not hold.
    descriptor = kornia_ditf.create_descriptor(str(model), long_side=48)
    maps = [descriptor(image) for image in images[:2]]
    refined = kornia_ditf.refine(kornia_ditf.match(*maps), *maps)
    np.testing.assert_allclose(found["points_b"], refined.points_b, atol=1e-3)
    assert found["images"]["a"] == {
        **described["images"]["a"],
        "path": str(pair[0]),
        "image": "a.png",
    }
    text = run("match", *pair, "--json-file", tmp_path / "m.json")
    assert f"{len(found['scores'])}; similarity" in text.stdout and "64 px" in text.stdout
    assert json.loads((tmp_path / "m.json").read_text()) == found


def test_one_query_runs_against_a_folder_and_gives_a_line_per_pair(
    run: Run, stored: Path, tmp_path: Path
) -> None:
    query, lines = stored / "a.safetensors", tmp_path / "all.jsonl"
    result = run("match", query, stored, "--json-file", lines, "--json")
    assert result.exit_code == 0 and result.stdout == lines.read_text()
    documents = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [each["images"]["b"]["image"] for each in documents] == ["a.png", "b.png", "c.png"]
    maps = [DescriptorMap.load(stored / f"{name}.safetensors") for name in "abc"]
    for document, other in zip(documents, maps, strict=True):
        assert len(document["scores"]) == len(kornia_ditf.match(maps[0], other))
    text = run("match", query, stored, "--min-score", 0.99).stdout.splitlines()
    assert len(text) == 3 and text[0].startswith(f"{query}: {9 * 12} matches, ")


def test_descriptors_stored_in_int8_are_matched_like_those_in_float32(
    run: Run, run_json: RunJson, stored: Path, images: list[Path], model: Path, tmp_path: Path
) -> None:
    command = ("extract", *images, "-b", model, "--long-side", 48, "--store", "int8")
    assert run(*command, "--out", tmp_path / "int8").exit_code == 0
    small, exact = (folder / "b.safetensors" for folder in (tmp_path / "int8", stored))
    assert small.stat().st_size < exact.stat().st_size / 2
    found = [run_json("match", stored / "a.safetensors", other) for other in (exact, small)]
    np.testing.assert_allclose(len(found[1]["scores"]), len(found[0]["scores"]), rtol=0.05)
    kept = run(*command[:-1], "float16", "--out", tmp_path / "int8")
    assert kept.exit_code == 5 and "other settings (stored_as)" in kept.stderr
    mistyped = run(*command[:-1], "int4", "--out", tmp_path / "int8")
    assert mistyped.exit_code == 2 and "--store must be one of float32" in mistyped.stderr


def test_what_cannot_be_compared_is_named_and_the_rest_goes_on(
    run: Run, stored: Path, images: list[Path], model: Path, tmp_path: Path
) -> None:
    query = stored / "a.safetensors"
    other = ("-b", model, "--long-side", 48, "--timestep", 7, "--out", tmp_path / "other")
    assert run("extract", images[1], *other).exit_code == 0
    shutil.copy(tmp_path / "other" / "b.safetensors", stored / "bb.safetensors")
    (stored / "broken.safetensors").write_bytes(query.read_bytes()[:-8])
    result = run("match", query, stored)
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 3
    different, broken = result.stderr.splitlines()
    assert "bb.safetensors cannot be compared" in different
    assert "timestep is 7.0 and" in different and "broken.safetensors" in broken
    alone = run("match", query, stored / "bb.safetensors")
    assert alone.exit_code == 2 and "timestep is 7.0" in alone.stderr


def test_several_blocks_are_chosen_among(
    run: Run, images: list[Path], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "blocks"
    command = ("-b", model, "--long-side", 48, "--block", 1, "--block", 3, "--out", out)
    assert run("extract", *images[:2], *command).exit_code == 0
    pair = (out / "a.safetensors", out / "b.safetensors")
    assert run("match", *pair, "--block", 3).exit_code == 0
    unclear = run("match", *pair)
    assert unclear.exit_code == 2 and "block_1, block_3" in unclear.stderr


@pytest.mark.parametrize(
    ("sides", "options", "words"),
    [
        (("a.safetensors", "a.png"), (), "kornia-ditf extract"),
        (("a.png", "."), (), "kornia-ditf extract"),
        (("a.safetensors", "missing.safetensors"), (), "missing.safetensors"),
        (("a.safetensors", "empty"), (), "holds no .safetensors files"),
        (("a.safetensors", "b.safetensors"), ("--timestep", "3"), "--timestep"),
        (("a.safetensors", "b.safetensors"), ("--picture", "m.png"), "--picture"),
        (("a.safetensors", "b.safetensors"), ("--device", "warp"), "device"),
    ],
)
def test_what_stored_descriptors_cannot_do_is_said(
    run: Run, stored: Path, images: list[Path], sides: Any, options: Any, words: str
) -> None:
    shutil.copy(images[0], stored / "a.png")
    (stored / "empty").mkdir()
    result = run("match", *(stored / side for side in sides), *options)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert words in result.stderr
