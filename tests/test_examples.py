"""Each example runs as a person would run it."""

from __future__ import annotations

import difflib
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from kornia_ditf.cli.app import app

EXAMPLES = Path(__file__).parents[1] / "examples"


pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a script in an empty folder and return what it prints."""

    def run(script: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_two_photographs_are_matched_and_drawn(run: Run, tmp_path: Path) -> None:
    assert "of them on one plane" in run("match_two_photographs.py")
    picture = cv2.imread(str(tmp_path / "matches.png"))
    assert picture is not None and picture.std() > 10


@pytest.mark.slow
def test_a_mask_and_a_point_are_followed_through_a_video_file(run: Run) -> None:
    lines = run("follow_a_mask.py").splitlines()
    overlaps = [int(line.split()[-1].rstrip("%")) for line in lines[:-1]]
    assert len(overlaps) == 6 and min(overlaps) >= 50
    assert lines[-1].startswith("the point moved from [40.0, 72.0] to [8")


@pytest.mark.slow
def test_each_steps_worth_is_printed_for_every_treatment(run: Run) -> None:
    lines = run("worth_of_each_step.py", "--long-side", "160").splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "raw",
        "adaln",
        "adaln+discard",
        "discard+layernorm",
    ]


@pytest.mark.slow
def test_one_photograph_is_brought_onto_the_other(run: Run, tmp_path: Path) -> None:
    assert "come back to where they began" in run("warp_by_flow.py")
    picture = cv2.imread(str(tmp_path / "flow.png"))
    assert picture is not None and picture.shape == (512, 1280, 3)


@pytest.mark.slow
def test_descriptors_are_compared_and_those_not_at_hand_are_said(run: Run) -> None:
    lines = run("compare_descriptors.py", "nano", "no-such").splitlines()
    assert lines[1].split()[:2] == ["nano", "160"] and lines[1].endswith("%")
    assert lines[2].startswith("no-such          not at hand: no backbone is named 'no-such'")


@pytest.mark.slow
def test_the_study_of_the_shipped_pairs_ends_in_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Smaller images, one block and two treatments, so that the tests stay short; all else as it is
    # shipped.
    text = (EXAMPLES / "studies/shipped_pairs.yaml").read_text("utf-8")
    text = text.replace("long_side: 320", "long_side: 96").replace("[raw, adaln, ", "[raw, ")
    text = text.replace("[3, 5]", "5").replace("../data", str(EXAMPLES / "data"))
    (tmp_path / "study.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["study", "run", "study.yaml"])
    assert done.exit_code == 0, done.stderr
    page = (tmp_path / "study-study/report.html").read_text("utf-8")
    assert "real pairs" in page and "warped and relit" in page


def test_the_study_of_flux_says_that_its_numbers_are_reported() -> None:
    from kornia_ditf.study.define.parsing import read_study

    study = read_study(EXAMPLES / "studies/flux_spair71k.yaml")
    assert [each.label for each in study.configurations()] == [
        "flux.1-dev treatment raw",
        "flux.1-dev treatment adaln",
        "flux.1-dev treatment adaln+discard",
    ]
    assert [each.value for each in study.reported] == [29.9, 65.3, 67.1]
    assert all("arXiv 2505.18584" in each.source for each in study.reported)


@pytest.mark.slow
def test_own_pairs_are_scored_with_the_definition_of_the_score(run: Run) -> None:
    lines = run("score_own_pairs.py", "--long-side", "160").splitlines()
    rows = {line[:20].strip(): line[20:].replace("%", "").split() for line in lines[1:5]}
    assert list(rows) == ["graffiti", "motorcycle", "per point", "per image"]
    assert float(rows["per point"][0]) > 50
    assert lines[-1].startswith("PCK@a: the share of keypoints")


def test_swapping_sift_changes_two_lines() -> None:
    before, after = (
        (EXAMPLES / f"homography_{name}.py").read_text("utf-8").splitlines()
        for name in ("sift", "ditf")
    )
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    assert changed == [
        "+ import kornia_ditf as kd",
        "- feature = cv2.SIFT_create()",
        '+ feature = kd.OpenCVFeature("nano")',
    ]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["homography_sift.py", "homography_ditf.py"])
def test_both_homographies_are_the_walls(script: str, run: Run, tmp_path: Path) -> None:
    printed = run(script)
    numbers = [float(number) for number in re.findall(r"-?\d\.\d+e[+-]\d+", printed)]
    x, y, scale = np.reshape(numbers, (3, 3)) @ [320, 256, 1]
    # graffiti.json takes the middle of A to (306.8, 269.0) in B.
    assert np.hypot(x / scale - 306.8, y / scale - 269.0) < 3
    assert (tmp_path / "homography.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "pattern"),
    [
        ("swap_kornia_descriptor.py", r"SIFT: \d+ matches.*\nnano: \d\d+ matches, \d\d+ of them"),
        ("stitch_two_photographs.py", r"panorama.png: 6[345]\d x 496 pixels"),
        ("track_a_plane.py", r"(?s)(frame \d: found True, off by [01].*){3}"),
        ("match_at_detected_corners.py", r"\d\d+ matches, \d\d+ of them on one plane"),
    ],
)
def test_an_example_in_kornia_prints_what_it_found(script: str, pattern: str, run: Run) -> None:
    assert re.search(pattern, run(script))


@pytest.mark.slow
def test_the_gain_of_refinement_is_a_table(run: Run) -> None:
    rows = run("refinement_gain.py").splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["graffiti", "motorcycle"]
    assert all(row.count("(-") == 2 for row in rows)  # both ways lower both medians


@pytest.mark.slow
def test_the_gain_of_search_is_a_table(run: Run) -> None:
    rows = run("search_gain.py", "--warps", "0x1,135x1", "--long-side", "160").splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[0] for row in cells] == ["0, 1", "135, 1"]
    assert [row[2:4] for row in cells] == [["1", "1 of 1"], ["0", "1 of 1"]]
    assert cells[0][5] == "1"  # an easy pair is compared once


@pytest.mark.slow
def test_a_scene_is_reconstructed_from_its_views(run: Run) -> None:
    heading, row = run("sfm.py", "--matchers", "sift", "--views", "4").splitlines()
    found = dict(zip(heading.split()[:3], row.split(), strict=False))
    assert found["registered"] == "4/4" and int(found["points"]) > 300
    assert float(row.split()[4]) < 0.5 and float(row.split()[6]) < 1


@pytest.mark.slow
def test_a_closer_look_lowers_the_error(run: Run) -> None:
    options = ("--side", "200", "--zoom", "2", "--tiles", "", "--long-side", "160")
    _, plain, closer = run("large_photographs.py", *options).splitlines()
    assert float(closer.split()[3]) < float(plain.split()[2])


def test_two_calibrations_are_compared(run: Run, tmp_path: Path) -> None:
    setting = {"timestep": 0, "long_side": 64, "draws": 1, "block": 1, "treatment": "raw"}
    values = {
        "settings": {**setting, "ensemble": 1},
        "measured": {"task": "same-scene", "cost": {"flops": 1, "grid_flops": 20}},
        "finalists": [{**setting, "block": block, "score": block / 10} for block in range(4)],
    }
    (tmp_path / "calibration.json").write_text(json.dumps(values))
    printed = run("calibration_agreement.py", ".", ".")
    assert "rank correlation 1.00 over 4 settings" in printed and "5.0% of its grid" in printed
    assert "it scores 10.0 % on same-scene" in printed and "20.0 points less" in printed


@pytest.mark.slow
def test_the_loss_of_8_bit_weights_and_of_stored_descriptors_is_printed(run: Run) -> None:
    lines = run("quantised_loss.py", "--long-side", "160").splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == ["float32", "int8", "fp8", "bfloat16"]
    assert all(line.endswith("PCK 0.883, 1.000") for line in lines[:10]) and len(lines) == 16
    assert all(float(line.rpartition(" ")[2]) > 0.999 for line in lines[10:])
