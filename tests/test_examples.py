"""Each example runs as a person would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_photographs_are_matched_and_drawn(tmp_path: Path) -> None:
    assert "of them on one plane" in run("match_two_photographs.py", tmp_path)
    picture = cv2.imread(str(tmp_path / "matches.png"))
    assert picture is not None and picture.std() > 10


@pytest.mark.slow
def test_each_steps_worth_is_printed_for_every_treatment(tmp_path: Path) -> None:
    lines = run("worth_of_each_step.py", tmp_path).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "raw",
        "adaln",
        "adaln+discard",
        "discard+layernorm",
    ]


@pytest.mark.slow
def test_one_photograph_is_brought_onto_the_other(tmp_path: Path) -> None:
    assert "come back to where they began" in run("warp_by_flow.py", tmp_path)
    picture = cv2.imread(str(tmp_path / "flow.png"))
    assert picture is not None and picture.shape == (512, 1280, 3)


@pytest.mark.slow
def test_descriptors_are_compared_and_those_not_at_hand_are_said(tmp_path: Path) -> None:
    lines = run("compare_descriptors.py", tmp_path, "nano", "no-such").splitlines()
    assert lines[1].split()[:2] == ["nano", "160"] and lines[1].endswith("%")
    assert lines[2].startswith("no-such          not at hand: no backbone is named 'no-such'")
