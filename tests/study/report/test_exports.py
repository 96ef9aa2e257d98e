"""Tables for other programs hold the report's numbers, and the bibliography what was used."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from kornia_ditf.protocols.presets import PROTOCOLS
from kornia_ditf.study.define.results import protocol_values
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.report.exports import bibliography, csv_table
from kornia_ditf.study.run.summary import read_summary


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_holds_the_numbers_of_the_report_in_full(reported: Path) -> None:
    (section,) = analyse(reported, read_summary(reported))
    scores, tests = rows(reported / "scores.csv"), rows(reported / "tests.csv")
    assert len(scores) == len(section.rows) * len(section.scores)
    values = [value for row in section.rows for value in row.values]
    assert [float(row["value"]) for row in scores] == [value.value for value in values]
    assert [float(row["low"]) for row in scores] == [value.low for value in values]
    assert [float(row["p_corrected"]) for row in tests] == [
        c.corrected for c in section.comparisons
    ]


def test_tables_hold_no_dates_and_no_hardware(reported: Path) -> None:
    summary = read_summary(reported)
    for name in ("tables.tex", "scores.csv", "tests.csv", "references.bib"):
        text = (reported / name).read_text("utf-8")
        assert summary["finished"] not in text and summary["hardware"]["processor"] not in text


def test_a_formula_is_text_in_csv() -> None:
    assert csv_table(("a",), [("=1+1",), ("a\nb",), (0.5,)]) == "a\n'=1+1\na b\n0.5\n"


@pytest.mark.parametrize(
    ("protocol", "dataset", "cited", "absent"),
    [
        ("dift-spair", "spair-71k", ("2306.03881", "1908.10543", "2505.18584"), ("1704.00675",)),
        ("davis-dino", "davis-2017", ("2104.14294", "1704.00675"), ("2306.03881",)),
    ],
)
def test_what_a_study_used_is_cited(
    reported: Path, protocol: str, dataset: str, cited: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    summary: dict[str, Any] = json.loads(json.dumps(read_summary(reported)))
    found = next(each for each in PROTOCOLS if each.name == protocol)
    summary["study"]["datasets"][0]["name"] = dataset
    for experiment in summary["experiments"]:
        experiment["protocol"] = protocol_values(found)
    text = bibliography(summary)
    for number in cited:
        assert text.count(f"eprint = {{{number}}}") == 1
    assert not any(number in text for number in absent)
    assert summary["records"] in text and text.count("{") == text.count("}")
    summary["experiments"][0]["protocol"]["source"] = "arXiv 2401.00001"
    assert "@misc{arxiv2401.00001," in bibliography(summary)


def test_a_hostile_version_is_no_bibtex(reported: Path) -> None:
    summary = read_summary(reported)
    summary["versions"]["kornia-ditf"] = "1}\n@misc{x,"
    assert "version = {1miscx}" in bibliography(summary)
