"""What is shipped: the wheels of the package and of its plugins, and the files of a release."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


@pytest.fixture(scope="module", params=PACKAGES, ids=lambda path: path.name)
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=request.param, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


def test_a_wheel_is_small_typed_licensed_and_renders_on_an_index(wheel: Path) -> None:
    assert wheel.stat().st_size < 15 * 2**20
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        fields = Parser().parsestr(archive.read(metadata).decode())
    assert any(name.endswith("/py.typed") for name in names) or "template" in wheel.name
    assert any("licenses/LICENSE" in name for name in names)
    assert fields["License-Expression"] == "Apache-2.0"
    assert not [name for name in names if "tests/" in name or name.endswith((".pyc", ".bin"))]
    check = [sys.executable, "-m", "twine", "check", "--strict", str(wheel)]
    checked = subprocess.run(check, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    if wheel.name.startswith("kornia_ditf-"):
        assert {"kornia_ditf/demo/data/graffiti_a.jpg", "kornia_ditf/__init__.pyi"} <= set(names)
        assert any(name.endswith("nano_weights/model_index.json") for name in names)


def test_the_citation_names_the_version_and_the_paper_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert citation["version"] == project["version"].partition(".dev")[0]
    assert citation["preferred-citation"]["url"].endswith("2505.18584")


def test_the_workflow_of_a_forge_runs_the_projects_own_checks() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    runs = [step["run"] for step in steps if "run" in step]
    assert ".ci/run" in runs
    assert workflow["jobs"]["wheels"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
