"""`kornia-ditf calibrate` and `kornia-ditf presets`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import Result

import kornia_ditf as kd
from kornia_ditf.errors import InvalidArgumentError

Run = Callable[..., Result]
RunJson = Callable[..., Any]
SMALL = ("--timesteps", "0,100", "--long-sides", "48", "--draws", "1", "--treatment", "raw")


@pytest.fixture
def folder(images: list[Path]) -> Path:
    """The folder of the three small pictures."""
    return images[0].parent / "photographs"


@pytest.fixture(autouse=True)
def _in_a_folder(images: list[Path], folder: Path) -> None:
    folder.mkdir()
    for path in images:
        path.rename(folder / path.name)


def test_a_calibration_is_kept_shown_used_exported_and_removed(
    run: Run, run_json: RunJson, model: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = run_json("calibrate", model, "--images", folder, *SMALL, "--out", out)
    settings = found["settings"]
    assert settings["timestep"] in (0, 100) and settings["treatment"] == "raw"
    assert found["measured"]["samples"] == 3 and found["weights"]["fingerprint"]
    assert found["measured"]["cost"]["flops"] <= found["measured"]["cost"]["grid_flops"]
    assert sorted(path.name for path in out.iterdir()) == [
        "calibration.json",
        "calibration.png",
        "preset.json",
    ]
    with Image.open(out / "calibration.png") as picture:
        assert min(picture.size) > 300

    tried = {"timesteps": (0, 100), "long_sides": (48,), "draws": (1,), "treatments": ("raw",)}
    in_python = kd.calibrate(model, folder, keep=False, **tried)
    assert json.loads(in_python.to_json())["settings"] == settings
    with pytest.raises(InvalidArgumentError, match="has no option facet"):
        kd.calibrate(model, folder, facet="key")

    shown = run_json("backbones", "show", model)
    assert shown["block"] == settings["block"] and shown["calibrated"]
    assert shown["source"].startswith("calibrated by you: same-scene")
    assert not run_json("backbones", "show", model, "--preset", "none")["calibrated"]
    matched = run_json("match", folder / "a.png", folder / "b.png", "-b", model)
    assert matched["backbone"]["timestep"] == settings["timestep"]
    assert matched["backbone"]["preset_source"].startswith("calibrated by you")

    (kept,) = [p for p in run_json("presets")["presets"] if p["origin"] == "calibrated by you"]
    exported = json.loads(run("presets", "show", kept["name"], "--json").stdout)
    assert exported == json.loads((out / "preset.json").read_text())
    assert "same-scene" in run("presets", "show", out / "preset.json").stdout
    run_json("presets", "remove", kept["name"])
    assert not run_json("backbones", "show", model)["calibrated"]
    named = run_json("backbones", "show", model, "--preset", out / "preset.json")
    assert named["source"].startswith("calibrated (preset.json)")
    run_json("presets", "add", out / "preset.json")
    assert run_json("backbones", "show", model)["calibrated"]


def test_a_plan_is_made_without_loading(
    run_json: RunJson, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kornia_ditf.registry.calibrate.create_ditf", lambda *_, **__: pytest.fail("loaded")
    )
    plan = run_json("calibrate", model, "--images", folder, *SMALL, "--plan")
    assert plan["samples"] == 3 and plan["grid"]["timesteps"] == [0, 100]
    assert plan["plan"]["forwards"] > 0 and plan["plan"]["tap_bytes"] > 0


def test_labelled_pairs_are_taken_from_a_data_set(
    run_json: RunJson, model: Path, folder: Path
) -> None:
    found = run_json(
        *("calibrate", model, "--dataset", "synthetic", "--root", folder, "--split", "viewpoint"),
        *("--pairs", 2, "--no-use", *SMALL),
    )
    assert found["measured"]["task"] == "synthetic viewpoint"
    assert found["measured"]["samples"] == 2
    assert not run_json("backbones", "show", model)["calibrated"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either --images FOLDER or --dataset NAME"),
        (("--dataset", "synthetic"), "--dataset needs --root"),
        (("--images", "absent"), "absent"),
        (("--images", ".", "--timesteps", "many"), "--timesteps must be comma-separated numbers"),
        (("--images", ".", "--blocks", "99"), "--blocks must lie in 0 to 3"),
        (("--images", ".", "-o", "facet=key"), "has no option facet"),
        (("--images", ".", "-o", "ensemble=4"), "has no option ensemble"),
        (("--images", ".", "--task", "depth"), "task must be one of same-scene, semantic"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(
    run: Run,
    model: Path,
    folder: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    result = run("calibrate", model, *arguments)
    assert result.exit_code in (2, 6) and message in " ".join(result.stderr.split())


CTRL_C_AFTER_A_RECORD = """
import os, signal
from kornia_ditf.calibration.measure import Records
from kornia_ditf.cli import main

add = Records.add
Records.add = lambda *told: (add(*told), os.kill(os.getpid(), signal.SIGINT))
main()
"""


def test_ctrl_c_ends_it_and_the_same_command_goes_on(
    run_json: RunJson, model: Path, folder: Path, tmp_path: Path
) -> None:
    command = ["calibrate", str(model), "--images", str(folder), *SMALL]
    words = [sys.executable, "-c", CTRL_C_AFTER_A_RECORD, *command]
    done = subprocess.run(words, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 130 and b"interrupted" in done.stderr
    (records,) = tmp_path.rglob("calibrations/*.jsonl")
    assert len(records.read_text().split("\n")) == 2
    again = [run_json(*command)]
    records.unlink()
    again.append(run_json(*command))
    for each in again:
        del each["measured"]["date"]
    assert again[0] == again[1]
