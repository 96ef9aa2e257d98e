"""Halves of a study that ran apart are the whole study, and what cannot be compared is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kornia_ditf.errors import InvalidArgumentError, StudyError
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.merge import merge_studies
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.run.summary import read_summary


def part(study: Study, **settings: Any) -> Study:
    chosen = study.descriptors[0].model_copy(update=settings)
    return study.model_copy(update={"descriptors": [chosen]})


def tables(out: Path) -> list[Any]:
    return [
        (section.pairs, [row.values for row in section.rows], section.comparisons, section.heat)
        for section in analyse(out, read_summary(out))
    ]


def test_two_halves_give_the_records_and_tables_of_the_whole(
    small_study: Study, tmp_path: Path
) -> None:
    whole = run_study(small_study, tmp_path / "whole")
    halves = [tmp_path / "raw", tmp_path / "discard"]
    for half, block in zip(halves, (1, 2), strict=True):
        label = f"nano block {block}"
        run_study(part(small_study, block=[block], label=label), half)
    merged = merge_studies(halves, tmp_path / "merged")
    assert merged.read_bytes() == whole.read_bytes()
    assert tables(tmp_path / "merged") == tables(tmp_path / "whole")
    assert all(path.is_file() for path in write_report(tmp_path / "merged"))
    with pytest.raises(InvalidArgumentError, match="a folder for the merged one"):
        merge_studies(halves, tmp_path / "merged")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cache_dtype": "float16"}, "cache_dtype is 'float32' and 'float16'"),
        ({"report": {"confidence": 0.9}}, r"report\.confidence is 0\.95 and 0\.9"),
        ({"limit": 3}, "pairs are 4 and 3"),
        ({}, "both hold 'nano treatment raw'"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_its_name(
    small_study: Study, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    study = part(small_study, block=[1])
    run_study(study, tmp_path / "a")
    report = study.report.model_copy(update=change.pop("report", {}))
    datasets = study.datasets
    if "limit" in change:
        datasets = [datasets[0].model_copy(update={"limit": change.pop("limit")})]
        study = part(study, label="other")
    run_study(
        study.model_copy(update={"report": report, "datasets": datasets, **change}), tmp_path / "b"
    )
    with pytest.raises(StudyError, match=message):
        merge_studies([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert not (tmp_path / "merged" / "records.parquet").exists()
