"""`kornia-ditf study` as a person types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from kornia_ditf.errors import InvalidArgumentError

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --out a study is kept in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def study(tmp_path: Path, images: list[Path], model: Path) -> Path:
    points = [[10, 10], [20, 30], [30, 20]]
    names = [path.name for path in images]
    pairs = [
        {"image_a": a, "image_b": b, "points_a": points, "points_b": points}
        for a, b in zip(names, names[1:] + names[:1], strict=True)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    descriptor = {"name": "nano", "source": str(model), "block": [1, 2], "treatment": "raw"}
    document = {
        "name": "small",
        "descriptors": [{**descriptor, "long_side": 32}],
        "datasets": [{"name": "folder", "root": "."}],
        "protocols": "plain",
        "report": {"resamples": 100, "permutations": 100, "pictures": 1},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_study_is_planned_run_and_reported(run: Run, study: Path, tmp_path: Path) -> None:
    planned = run("study", "plan", study)
    assert planned.exit_code == 0, planned.stderr
    assert "3 (folder, plain); 6 with every configuration" in planned.stdout
    done = run("study", "run", study, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "describing images: 3" in done.stderr and "report.html" in done.stderr
    again = run("study", "run", study, "--out", tmp_path / "out", "--no-report")
    assert again.exit_code == 0 and "describing" not in again.stderr
    reported = run("study", "report", tmp_path / "out")
    assert [Path(line).name for line in reported.stdout.split()] == [
        "report.html",
        "report.md",
        "tables.tex",
        "scores.csv",
        "tests.csv",
        "references.bib",
    ]


def test_escape_codes_in_names_are_shown_and_not_sent(
    run: Run, study: Path, tmp_path: Path
) -> None:
    odd = "\x1b]0;owned\x07\u202e"
    document = yaml.safe_load(study.read_text())
    document["name"] = document["datasets"][0]["label"] = document["descriptors"][0]["label"] = odd
    study.write_text(yaml.safe_dump(document))
    results = [
        run("study", "plan", study),
        run("study", "run", study, "--out", tmp_path / odd),
        run("study", "report", tmp_path / odd),
        run("study", "plan", tmp_path / f"{odd}.yaml"),
    ]
    assert [result.exit_code for result in results] == [0, 0, 0, 2]
    written = "".join(result.stdout + result.stderr for result in results)
    assert not {"\x1b", "\x07", "\u202e"} & set(written) and written.count("\\x1b") >= 6


def test_studies_are_merged_and_reported(run: Run, study: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        study.write_text(
            study.read_text().replace("name: nano", f"label: {folder.name}\n  name: nano")
        )
        assert run("study", "run", study, "--out", folder, "--no-report").exit_code == 0
        study.write_text(study.read_text().replace(f"label: {folder.name}\n  ", ""))
    merged = run("study", "merge", *folders, "--out", tmp_path / "c")
    assert merged.exit_code == 0, merged.stderr
    assert "a block 1" in (tmp_path / "c/report.md").read_text()
    again = run("study", "merge", folders[0], folders[0], "--out", tmp_path / "d")
    assert again.exit_code == 1 and "both hold 'a block 1'" in again.stderr


def test_parts_are_bundled_merged_compared_and_put_on_a_leaderboard(
    run: Run, run_json: Any, study: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        out = ("--out", tmp_path / f"part{number}", "--cache", tmp_path / "maps", "--no-report")
        ran = run("study", "run", study, "--part", f"{number}/2", *out)
        assert ran.exit_code == 0, ran.stderr
    bundles = [
        run(
            "study", "bundle", tmp_path / f"part{number}", "--out", tmp_path / "bundles"
        ).stdout.replace("\n", "")
        for number in (1, 2)
    ]
    merged = run("study", "merge", *bundles, "--out", tmp_path / "whole")
    assert merged.exit_code == 0, merged.stderr
    page = tmp_path / "differences.html"
    compared = run("study", "compare", tmp_path / "whole", tmp_path / "whole", "--html", page)
    assert compared.exit_code == 0 and "in %; p corrected by Holm for 12 cells" in compared.stdout
    assert "Two studies compared" in page.read_text()
    document = run_json("study", "compare", tmp_path / "whole", tmp_path / "whole")
    assert document["cells"][0]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    site = run("study", "leaderboard", tmp_path / "bundles", "--out", tmp_path / "site")
    assert site.exit_code == 0 and "index.html" in site.stdout and not site.stderr
    refused = run("study", "compare", tmp_path / "whole", tmp_path / "part1")
    assert refused.exit_code == 1 and "pairs are 3 and" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--part", "2"), "--part must be K/N, such as 1/2, got '2'"),
        (("--part", "3/2"), "a part is NUMBER/COUNT, such as 1/2, got 3/2"),
        (("--log", "tensorbored"), "--log must be one of trackio, wandb, mlflow"),
    ],
)
def test_a_wrong_part_or_tracker_is_told_before_the_work(
    run: Run, study: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run("study", "run", study, *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_a_plan_is_a_document_for_machines(run_json: Any, study: Path) -> None:
    document = run_json("study", "plan", study)
    assert document["scored"] == 6 and document["forwards"] == 3
    assert document["cache_bytes"] > 0 and document["groups"][0]["configurations"] == 2


def test_a_mistake_in_the_file_is_one_line_with_its_place(run: Run, study: Path) -> None:
    study.write_text(study.read_text().replace("treatment", "treatmant"))
    result = run("study", "run", study)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and "did you mean 'treatment'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "dask"), "must be local, processes or ray, got 'dask'"),
        (("--devices", "cpu,cpu"), "use --engine processes"),
        (("--devices", "gpu9"), "device 'gpu9' cannot be used"),
    ],
)
def test_a_wrong_engine_is_refused(
    run: Run, study: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run("study", "run", study, *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_unknown_names_are_told_with_the_nearest(run: Run, study: Path, tmp_path: Path) -> None:
    text = study.read_text()
    for old, new, message in (
        ("name: folder", "name: foldr", "did you mean 'folder'"),
        ("protocols: plain", "protocols: plane", "did you mean 'plain'"),
        ("name: nano", "name: nanno", "did you mean 'nano'"),
        ("name: nano", "options: {offlod: true}\n  name: nano", "did you mean 'offload'"),
    ):
        study.write_text(text.replace(old, new))
        result = run("study", "run", study, "--out", tmp_path / "out")
        assert result.exit_code in (2, 4) and message in result.stderr


def test_a_folder_in_use_is_an_error(run: Run, study: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"):
        result = run("study", "run", study, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "is in use by another run" in result.stderr


def test_an_ablation_prints_a_row_for_each_treatment(
    run: Run, study: Path, model: Path, tmp_path: Path
) -> None:
    result = run(
        *("study", "ablation", "nano", "--source", model, "--block", 1, "--long-side", 32),
        *("--dataset", "folder", "--root", study.parent, "--out", tmp_path / "ablation"),
    )
    assert result.exit_code == 0, result.stderr
    rows = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    assert rows[2:6] == ["raw", "adaln", "adaln+discard", "discard+layernorm"]
    assert "per image" in result.stdout and "per point" in result.stdout


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"source": ""}, r"'descriptors\[0\].source' is ''"),
        ({"limit": 0}, r"'datasets\[0\].limit' is 0"),
        ({"settings": {"block": "x"}}, r"'descriptors\[0\].block\[0\]' is 'x'"),
    ],
)
def test_a_wrong_value_of_an_ablation_is_named(wrong: dict[str, Any], told: str) -> None:
    from kornia_ditf.study.report.ablation import ablation_study

    with pytest.raises(InvalidArgumentError, match=told):
        ablation_study("nano", **wrong)


def test_the_photographs_of_the_project_are_the_default_of_an_ablation() -> None:
    from kornia_ditf.study.report.ablation import ablation_study

    study = ablation_study("nano")
    assert Path(str(study.datasets[0].root)).samefile(Path(__file__).parents[2] / "examples/data")
