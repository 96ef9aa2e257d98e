"""`kornia-ditf datasets`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import pytest
from typer.testing import Result

from kornia_ditf.registry.datasets import list_datasets

Run = Callable[..., Result]
RunJson = Callable[..., Any]


@pytest.mark.parametrize("command", [("datasets",), ("datasets", "list")])
def test_every_data_set_is_listed_with_its_layout_and_source(
    run: Run, command: tuple[str, ...]
) -> None:
    text = run(*command).stdout
    for name, spec in list_datasets().items():
        assert f"{name} " in text and spec.layout in text and spec.source in text


def test_the_list_as_json_holds_names_and_splits(run_json: RunJson) -> None:
    found = {each["name"]: each for each in run_json("datasets")["datasets"]}
    assert found["davis-2017"]["splits"] == ["val", "train"]
    assert set(found) == set(list_datasets())


def test_a_whole_copy_is_counted(run: Run, run_json: RunJson, tmp_path: Path) -> None:
    layouts.spair(tmp_path)
    result = run("datasets", "check", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "spair-71k" in result.stdout and "no defects" in result.stdout
    assert "pairs  points  categories" in result.stdout
    document = run_json("datasets", "check", tmp_path)
    assert document["splits"][0]["categories"] == {"cat": 3, "train": 3}
    assert document["splits"][0]["pairs"] == 6 and document["defects"] == []


def test_defects_are_named_and_the_exit_code_says_so(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    place = layouts.spair(tmp_path)
    path = min((place / "JPEGImages/cat").iterdir())
    path.unlink()
    result = run("datasets", "check", tmp_path)
    assert result.exit_code == 6
    assert f"{path}: there is no such image" in result.stdout
    assert "1 defect" in result.stderr and result.stderr.count("\n") == 1
    document = run_json("datasets", "check", tmp_path, code=6)
    assert document["defects"][0]["file"] == str(path)


def test_images_are_decoded_unless_asked_not_to(run: Run, tmp_path: Path) -> None:
    place = layouts.hpatches(tmp_path)
    path = place / "v_abstract/4.ppm"
    path.write_bytes(path.read_bytes()[:200])
    assert run("datasets", "check", tmp_path).exit_code == 6
    result = run("datasets", "check", tmp_path, "--no-images")
    assert result.exit_code == 0 and "(not decoded)" in result.stdout


def test_a_data_set_can_be_named(run: Run, tmp_path: Path) -> None:
    layouts.folder(tmp_path)
    result = run("datasets", "check", tmp_path / "own", "--dataset", "synthetic")
    assert result.exit_code == 0 and "synthetic" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("absent",), 6, "there is no such folder"),
        ((".",), 6, "layout is not that of a known data set; choose one with --dataset"),
        ((".", "--dataset", "spair"), 2, "did you mean 'spair-u'"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    run: Run,
    arguments: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("datasets", "check", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr and result.stderr.count("\n") == 1
