"""Installing the package leaves the OpenCV of a person as it is, if they ask for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FILE = ROOT / "requirements-own-opencv.txt"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def test_the_file_lists_every_dependency_but_opencv() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    listed = [line for line in FILE.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert listed == [each for each in project["dependencies"] if "opencv" not in each]
    assert any(each.startswith("opencv-python>=") for each in project["dependencies"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run([*PIP, *build], check=True, capture_output=True)
    [built] = folder.glob("kornia_ditf-*.whl")
    return built


def doctor(python: Path, site: Path) -> Any:
    """Ask the command that is installed in a fresh environment."""
    # Its other libraries come from the environment that runs this test, out of pip's sight.
    others = site / "others.pth"
    others.write_text(sysconfig.get_path("purelib"))
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-m", "kornia_ditf", "doctor", "--json"]
    done = subprocess.run(command, cwd=site, env=alone, capture_output=True, check=True)
    others.unlink()
    return json.loads(done.stdout)["cv2"]


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize(
    "theirs", ["opencv-python-headless", "opencv-contrib-python", "opencv-python"]
)
def test_without_dependencies_the_cv2_that_is_there_stays(
    theirs: str, wheel: Path, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=False)
    python = fresh / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(fresh), "platbase": str(fresh)}))
    into = [*PIP, "--python", str(python)]
    subprocess.run([*into, "install", "--no-deps", theirs], check=True)
    before = {file: file.stat().st_mtime_ns for file in site.glob("cv2/*") if file.is_file()}
    subprocess.run([*into, "install", "--no-deps", str(wheel)], check=True)

    found = doctor(python, site)
    assert Path(found["folder"]) == site / "cv2" and found["distribution"] == theirs
    assert before == {file: file.stat().st_mtime_ns for file in before}

    if theirs == "opencv-python":
        return
    # What a plain install does: a second distribution over the first, which doctor reports.
    subprocess.run([*into, "install", "--no-deps", "opencv-python"], check=True)
    found = doctor(python, site)
    assert {theirs, "opencv-python"} <= set(found["claimed_by"])
    assert found["distribution"] == "opencv-python"
    assert "2 distributions provide cv2" in found["problem"]
    # The remedy that it prints works.
    for step in (found["problem"].split(": ", 1)[1]).replace("pip ", "").split(" && "):
        subprocess.run([*into, *step.split()], check=True)
    found = doctor(python, site)
    assert found["distribution"] == "opencv-python" and Path(found["folder"]) == site / "cv2"
