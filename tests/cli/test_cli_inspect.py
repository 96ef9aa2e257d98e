"""`kornia-ditf inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import Result

import kornia_ditf
from kornia_ditf.cli.values import read_blocks
from kornia_ditf.errors import InvalidArgumentError

Run = Callable[..., Result]
RunJson = Callable[..., Any]
SMALL = ("--long-side", 48)


def test_planted_channels_are_listed_at_every_block(
    run: Run, run_json: RunJson, images: list[Path], massive_model: Path
) -> None:
    command = ("inspect", *images, "-b", massive_model, *SMALL)
    found = run_json(*command)
    assert [block["massive_channels"] for block in found["blocks"].values()] == [[7, 19]] * 4
    largest = found["blocks"]["0"]["largest"][:2]
    assert {entry["channel"] for entry in largest} == {7, 19}
    assert all(entry["ratio"] > 8 and entry["token_share"] == 1 for entry in largest)
    text = run(*command).stdout
    assert "7, 19 (found here)" in text and "massive" in text


def test_channels_of_gates_are_compared_with_those_of_the_images(
    run: Run, run_json: RunJson, images: list[Path], massive_model: Path
) -> None:
    command = ("inspect", images[0], "-b", massive_model, *SMALL, "--blocks", "2")
    assert run_json(*command, "--block", 2)["compared"]["gates"] == {
        "channels": [],
        "shared": [],
        "only_gates": [],
        "only_images": [7, 19],
    }
    for path in massive_model.glob("transformer/*.safetensors"):
        tensors = load_file(path)
        for table in (each for name, each in tensors.items() if "1.scale_shift_table" in name):
            table[2, 9], table[2, 12] = 500.0, 500.0
        save_file(tensors, path, {"format": "pt"})
    found = run_json(*command, "--block", 2)["compared"]["gates"]
    assert found["channels"] == [9, 12] and {7, 19} <= {*found["only_images"]} | {*found["shared"]}
    text = run(*command, "--block", 2).stdout
    assert "9, 12 (" in text and "in the images alone: " in text
    assert run_json(*command, "--block", 1)["compared"]["gates"]["channels"] == []
    asked = run(*command, "--block", 2, "--option", "massive_channels=gates").stdout
    assert "discarded" in asked and "9, 12 (from the residual gates)" in asked
    before = run(*command, "--block", 0).stdout
    assert "none: no block before block 0 has residual gates" in before
    facet = run(*command, "--block", 2, "--option", "facet=key").stdout
    assert "not of its key" in facet


def test_discarding_gives_the_tokens_their_contrast_back(
    run_json: RunJson, images: list[Path], massive_model: Path, model: Path
) -> None:
    planted = run_json("inspect", *images, "-b", massive_model, *SMALL)["compared"]["contrast"]
    clean = run_json("inspect", *images, "-b", model, *SMALL)["compared"]["contrast"]
    assert planted["raw"] < 0.1 * clean["raw"]
    assert planted["adaln+discard"] > 3 * planted["adaln"]


def test_only_the_blocks_asked_for_are_measured(
    run_json: RunJson, images: list[Path], model: Path
) -> None:
    found = run_json("inspect", images[0], "-b", model, *SMALL, "--blocks", "0-1", "--block", 1)
    assert list(found["blocks"]) == ["0", "1"] and found["compared"]["block"] == 1


def test_pictures_and_values_are_written(
    run: Run, images: list[Path], massive_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run("inspect", *images, "-b", massive_model, *SMALL, "--out", out)
    assert result.exit_code == 0, result.stderr
    names = ("channels.png", "similarity.png", "inspection.json")
    assert ", ".join(str(out / name) for name in names) in result.stdout
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    for name in names[:2]:
        with Image.open(out / name) as picture:
            assert picture.width > 700 and np.asarray(picture).std() > 10
    assert json.loads((out / "inspection.json").read_text())["compared"]["discarded"] == [7, 19]


def test_kept_channels_are_used_afterwards(
    run: Run, images: list[Path], massive_model: Path
) -> None:
    options = ("-b", massive_model, *SMALL)
    assert kornia_ditf.create_descriptor(massive_model).massive_channels() is None
    assert "7, 19 (used from now on)" in run("inspect", *images, *options, "--keep").stdout
    assert kornia_ditf.create_descriptor(massive_model).massive_channels() == (7, 19)
    assert "7, 19 (kept by an earlier" in run("match", *images[:2], *options).stdout


@pytest.mark.parametrize("point", [(-1, 0), (0, 48), (64, 0)])
def test_a_point_outside_the_first_image_is_refused(
    run: Run, images: list[Path], model: Path, point: tuple[int, int]
) -> None:
    result = run("inspect", images[0], "-b", model, *SMALL, "--blocks", 0, "--point", *point)
    assert result.exit_code == 2 and "x in [0, 63] and y in [0, 47]" in result.stderr


def test_lists_of_blocks_are_read() -> None:
    assert read_blocks("all", 3) == [0, 1, 2]
    assert read_blocks("5, 1-3,2", 6) == [1, 2, 3, 5]


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "3-1", "6", "1,,2"])
def test_what_is_no_list_of_blocks_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="--blocks"):
        read_blocks(text, 6)


def test_the_components_are_drawn_below_the_images(
    run_json: RunJson, run: Run, images: list[Path], model: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "pca.png"
    command = ("inspect", *images[:2], "-b", model, "--long-side", 48, "--blocks", "1")
    run_json(*command, "--pca", picture)
    with Image.open(picture) as drawn:
        assert drawn.size == (64 + 12 + 48, 3 * 64 + 2 * 12)
    assert run(*command, "--pca", images[0]).exit_code == 5
