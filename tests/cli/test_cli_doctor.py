from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from kornia_ditf.utils import opencv
from kornia_ditf.utils.opencv import find_opencv

SITE = Path(cv2.__file__).parents[1]


def pretend(monkeypatch: pytest.MonkeyPatch, *names: str, present: bool = True) -> None:
    class Distribution:
        version = "4.10.0.84"

        def __init__(self, name: str) -> None:
            self.name = name

        def locate_file(self, path: str) -> Path:
            return SITE / path

    monkeypatch.setattr(opencv, "distributions", lambda: [Distribution(name) for name in names])
    if not present:
        monkeypatch.setattr(opencv, "find_spec", lambda _: None)


def test_the_opencv_in_use_is_named(run_json: Callable[..., Any]) -> None:
    found = run_json("doctor")["cv2"]
    assert Path(found["folder"]) == SITE / "cv2"
    assert found["version"].startswith(cv2.__version__)
    assert found["distribution"] in found["claimed_by"]


def test_two_distributions_that_provide_cv2_are_a_problem_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    pretend(monkeypatch, "opencv_python", "opencv-contrib-python", "numpy")
    problem = find_opencv().problem
    assert problem is not None and problem.startswith("2 distributions provide cv2")
    assert "pip uninstall -y opencv-contrib-python opencv-python &&" in problem
    assert "2 distributions provide cv2" in run("doctor").stdout


def test_a_distribution_elsewhere_on_the_path_is_only_shadowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, "opencv-python")
    monkeypatch.setattr(
        opencv,
        "find_spec",
        lambda _: type("Spec", (), {"origin": str(tmp_path / "cv2/__init__.py")}),
    )
    found = find_opencv()
    assert found.folder == tmp_path / "cv2" and not found.claims and found.problem is None
    assert found.distribution is None and found.version is None


@pytest.mark.parametrize(
    ("names", "message"),
    [(["opencv-python"], "files of opencv-python are gone"), ([], "OpenCV is not installed")],
)
def test_a_missing_cv2_is_a_problem(
    names: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, *names, present=False)
    assert message in str(find_opencv().problem)
