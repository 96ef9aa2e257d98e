"""Pieces of a study that ran apart are the whole study, and what cannot be compared is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from study_files import write_pairs

from kornia_ditf.errors import InvalidArgumentError, StudyError
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.run.summary import read_finished
from kornia_ditf.study.share.merge import merge_studies
from kornia_ditf.utils.cache import write_checked

TABLES = ("records.parquet", "tables.tex", "scores.csv", "tests.csv")


def only(study: Study, **settings: Any) -> Study:
    """The study with one block, or another change of its descriptor."""
    chosen = study.descriptors[0].model_copy(update=settings)
    return study.model_copy(update={"descriptors": [chosen]})


def check_tables(pieces: list[Path], whole: Path, out: Path) -> None:
    merge_studies(pieces, out)
    write_report(out)
    for name in TABLES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_halves_by_descriptors_give_the_tables_of_the_whole(
    studies: Any, reported: Path, tmp_path: Path
) -> None:
    study = studies.study()
    halves = [
        studies(f"block {block}", only(study, block=[block], label=f"nano block {block}"))
        for block in (1, 2)
    ]
    check_tables(halves, reported, tmp_path / "merged")
    with pytest.raises(InvalidArgumentError, match="a folder for the merged one"):
        merge_studies(halves, tmp_path / "merged")


def test_parts_of_the_pairs_give_the_tables_of_the_whole_in_any_order(
    studies: Any, reported: Path, tmp_path: Path
) -> None:
    parts = [studies(f"part {n}", part=(n, 2)) for n in (1, 2)]
    check_tables(parts[::-1], reported, tmp_path / "merged")
    for out, told in ((parts[0], True), (tmp_path / "merged", False)):
        assert ("Part 1 of 2 of the pairs" in write_report(out)[0].read_text("utf-8")) == told
    third = studies("part 3", part=(3, 3))
    for pieces, message in (
        ([parts[0], parts[0]], "part 1/2 of 'nano block 1 treatment raw' on 'folder' is there tw"),
        ([parts[0], third], "they hold part 1/2 and part 3/3 of the pairs of 'folder'"),
        ([parts[0], reported], "they hold part 1/2 and all of the pairs"),
    ):
        with pytest.raises(StudyError, match=message):
            merge_studies(pieces, tmp_path / "refused")


def test_a_part_that_holds_no_pair_is_refused(studies: Any, tmp_path: Path) -> None:
    for part, message in (((1, 9), "has 4 pairs, too few for 9 parts"), ((3, 2), "got 3/2")):
        with pytest.raises(InvalidArgumentError, match=message):
            run_study(studies.study(), tmp_path / "out", part=part)


def test_halves_by_data_sets_and_by_lists_give_the_tables_of_the_whole(
    studies: Any, tmp_path: Path
) -> None:
    root = write_pairs(tmp_path / "pairs", 4)
    rows = json.loads((root / "pairs.json").read_text())
    for name, some in (("first", rows[:2]), ("second", rows[2:])):
        (root / f"{name}.json").write_text(json.dumps(some))

    def ran(name: str, *files: str) -> Path:
        # A list of its own for each data set, or a data set split into two lists.
        datasets = [
            {
                "name": "folder",
                "label": "one" if file == "pairs" or name.startswith("list") else file,
                "root": str(root),
                "options": {"file": f"{file}.json"},
            }
            for file in files
        ]
        study = only(studies.study(name=f"{name}.yaml", datasets=datasets), massive_channels=[3])
        run_study(study, tmp_path / name, cache=tmp_path / "maps")
        return tmp_path / name

    sets, lists = ran("sets", "first", "second"), ran("whole", "pairs")
    for whole in (sets, lists):
        write_report(whole)
    check_tables([ran("set1", "first"), ran("set2", "second")], sets, tmp_path / "merged sets")
    check_tables([ran("list1", "first"), ran("list2", "second")], lists, tmp_path / "merged lists")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cache_dtype": "float16"}, "cache_dtype is 'float32' and 'float16'"),
        ({"report": {"confidence": 0.9}}, r"report\.confidence is 0\.95 and 0\.9"),
        ({"limit": 3, "label": "other"}, "pairs are 4 and 3"),
        ({}, "both hold 'nano treatment raw' on the pair 'pair-0'"),
        ({"timestep": [9.0]}, r"settings\.timestep is None and 9"),
        ({"overrides": {"alphas": [0.2]}, "label": "other"}, None),
    ],
)
def test_what_cannot_be_compared_is_refused_by_its_name(
    studies: Any, tmp_path: Path, change: dict[str, Any], message: str | None
) -> None:
    study = only(studies.study(), block=[1])
    first = studies("one block", study)
    report = study.report.model_copy(update=change.pop("report", {}))
    datasets = [study.datasets[0].model_copy(update={"limit": change.pop("limit", None)})]
    protocols = [
        each.model_copy(update={"overrides": change.pop("overrides", {})})
        for each in study.protocols_of(study.datasets[0])
    ]
    own = {key: change.pop(key) for key in ("label", "timestep") if key in change}
    other = only(study, **own).model_copy(
        update={"report": report, "datasets": datasets, "protocols": protocols, **change}
    )
    run_study(other, tmp_path / "b", cache=studies.folder / "maps")
    if message is None:  # another protocol has another name, and so a table of its own
        assert merge_studies([first, tmp_path / "b"], tmp_path / "merged").is_file()
        return
    with pytest.raises(StudyError, match=message):
        merge_studies([first, tmp_path / "b"], tmp_path / "merged")
    assert not (tmp_path / "merged" / "records.parquet").exists()


def test_images_that_changed_under_the_same_names_are_not_compared(
    studies: Any, tmp_path: Path
) -> None:
    study = only(studies.study(), block=[1], treatment=["raw"], label="other")
    root = write_pairs(tmp_path / "pairs", 4)
    (root / "0.png").write_bytes((root / "1.png").read_bytes())
    datasets = [study.datasets[0].model_copy(update={"root": str(root)})]
    run_study(study.model_copy(update={"datasets": datasets}), tmp_path / "b")
    with pytest.raises(StudyError, match="the images or annotations of the pairs differ"):
        merge_studies([studies("whole"), tmp_path / "b"], tmp_path / "merged")


def test_a_cell_that_failed_in_a_part_has_no_score_in_the_whole(
    studies: Any, tmp_path: Path
) -> None:
    failed = {
        "descriptor": "nano block 1 treatment raw",
        "dataset": "folder",
        "protocol": "plain",
        "reason": "it hung",
    }
    first = Path(shutil.copytree(studies("part 1", part=(1, 2)), tmp_path / "part"))
    document = json.loads((first / "study.json").read_text())
    with write_checked(first / "study.json") as path:
        path.write_text(json.dumps({**document, "failed": [failed]}))
    merge_studies([first, studies("part 2", part=(2, 2))], tmp_path / "merged")
    write_report(tmp_path / "merged")
    report = (tmp_path / "merged" / "report.md").read_text()
    assert "| nano block 1 treatment raw | no score: it hung |" in report
    assert read_finished(tmp_path / "merged")["failed"] == [failed]
