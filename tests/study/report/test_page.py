"""A report stands by itself, says what its numbers mean, and agrees with the metrics."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from markdown_it import MarkdownIt

from kornia_ditf.errors import StudyError
from kornia_ditf.metrics.pck import PCK
from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.run.summary import read_summary
from kornia_ditf.utils.cache import write_checked

REPORTED = {"what": "a & b", "metric": "PCK", "value": 67.1, "source": "a paper"}


@pytest.fixture
def out(make_study: Any, tmp_path: Path) -> Path:
    study = read_study(make_study(pairs=6, name="s.yaml", reported=[REPORTED]))
    run_study(study, tmp_path / "out")
    return tmp_path / "out"


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags are closed."""

    VOID = ("meta", "link", "img", "br", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(out: Path) -> None:
    page = Page((out / write_report(out)[0].name).read_text("utf-8"))
    assert page.open == []
    kinds = {re.match(r"data:|#", reference) is not None for reference in page.references}
    assert kinds == {True}
    assert "data:image/jpeg" in " ".join(page.references)
    assert "<script src" not in (out / "report.html").read_text("utf-8")


def test_both_kinds_of_pck_stand_with_their_definition(out: Path) -> None:
    for path in write_report(out)[:2]:
        text = path.read_text("utf-8").replace("&lt;", "<").replace("&#39;", "'")
        assert "per image" in text and "per point" in text
        assert "at a distance <= a times the longer side of image B" in text
        assert "in 4 random swaps" not in text and "Holm for" in text


def test_numbers_carry_where_they_come_from(out: Path) -> None:
    text = write_report(out)[0].read_text("utf-8")
    summary = read_summary(out)
    for told in (
        summary["finished"],
        summary["versions"]["torch"],
        summary["hardware"]["processor"],
        "timestep=0",
        "Reported elsewhere, not measured here",
        "a &amp; b",
    ):
        assert told in text


def test_latex_is_escaped(out: Path) -> None:
    text = (out / write_report(out)[2].name).read_text("utf-8")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    body = "".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%#_$]", body)


def test_the_tables_agree_with_the_metric_itself(out: Path) -> None:
    (section,) = analyse(out, read_summary(out))
    names = [score.name for score in section.scores]
    for row in section.rows:
        pck = PCK(section.protocol["alphas"], "image")
        chosen = [("descriptor", "==", row.descriptor)]
        for record in pq.read_table(out / "records.parquet", filters=chosen).to_pylist():
            pck.update(torch.tensor(record["hits"]), record["category"])
        scores = pck.compute()
        for kind, expected in (
            ("per image", scores.per_image),
            ("per point", scores.per_point),
            ("of categories", scores.per_point_of_categories),
        ):
            for alpha, value in zip(scores.alphas, expected, strict=True):
                found = row.values[names.index(f"PCK@{alpha:g} {kind}")]
                assert found.value == pytest.approx(value)
                assert found.low - 1e-9 <= found.value <= found.high + 1e-9


def test_curves_are_found_where_one_setting_changes(out: Path) -> None:
    (section,) = analyse(out, read_summary(out))
    assert [(c.setting, c.label, [x for x, _ in c.points]) for c in section.curves] == [
        ("block", "nano treatment raw", [1.0, 2.0]),
        ("block", "nano treatment adaln+discard", [1.0, 2.0]),
    ]
    assert section.categories == ("even", "odd") and len(section.heat) == 4
    assert len(section.comparisons) == 6
    assert all(each.p <= each.corrected <= 1 for each in section.comparisons)


def test_a_folder_without_a_finished_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no finished study .*study run FILE --out"):
        write_report(tmp_path)


def test_damaged_records_are_not_reported(out: Path) -> None:
    path = out / "records.parquet"
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(StudyError, match="records.parquet is damaged"):
        write_report(out)


@pytest.mark.parametrize("text", ["{}", "5", "[" * 5000, None])
def test_a_summary_that_was_changed_is_not_reported(out: Path, text: str | None) -> None:
    path = out / "study.json"
    before = path.read_text("utf-8")
    path.write_text(before.replace('"width"', '"wide"') if text is None else text)
    with pytest.raises(StudyError, match=r"study\.json is damaged or was changed"):
        write_report(out)


def test_records_that_are_newer_than_their_summary_are_not_reported(out: Path) -> None:
    path = out / "study.json"
    changed = path.read_text("utf-8").replace(read_summary(out)["records"], "0" * 64)
    with write_checked(path) as temporary:
        temporary.write_text(changed, "utf-8")
    with pytest.raises(StudyError, match="was interrupted; run it again"):
        write_report(out)


def test_homographies_are_scored_by_corners_and_matches(small_study: Study, tmp_path: Path) -> None:
    root = small_study.datasets[0].root
    choice = small_study.datasets[0].model_copy(
        update={"name": "synthetic", "options": {"pattern": "[01].png", "points": 12}}
    )
    planar = [small_study.protocols_of(choice)[0].model_copy(update={"name": "plain-homography"})]
    study = small_study.model_copy(update={"datasets": [choice], "protocols": planar})
    run_study(study, tmp_path / "out")
    (section,) = analyse(tmp_path / "out", read_summary(tmp_path / "out"))
    assert root and section.pairs == 6
    assert {score.kind for score in section.scores} == {"corner accuracy", "corner AUC", "MMA"}
    thresholds = {kind: [s.alpha for s in section.scores if s.kind == kind] for kind in ("MMA",)}
    assert thresholds == {"MMA": list(range(1, 11))}
    assert [s.alpha for s in section.scores if s.kind == "corner accuracy"] == [1, 3, 5]
    assert write_report(tmp_path / "out")


ODD = "[x](javascript:alert(1)) `|` <img src=x> $\\frac{x$ \\| *b* \x1b[31m\n\n# h \\input{s} https://x"


@pytest.fixture
def odd(make_study: Any, tmp_path: Path, tiny_checkpoint: Any) -> Path:
    """A study whose every text is hostile, and whose report has no pictures."""
    descriptor = {
        "name": "nano",
        "source": str(tiny_checkpoint("nano")),
        "label": ODD,
        "block": [1, 2],
        "long_side": 32,
    }
    file = make_study(descriptors=[descriptor], name="s.yaml")
    document = yaml.safe_load(file.read_text())
    document["name"] = ODD
    document["datasets"][0]["label"] = ODD
    document["report"]["pictures"] = 0
    document["reported"] = [{"what": ODD, "metric": ODD, "value": 1.0, "source": ODD}]
    pairs = Path(document["datasets"][0]["root"]) / "pairs.json"
    rows = json.loads(pairs.read_text())
    for number, row in enumerate(rows):
        row["name"], row["category"] = f"{number}{ODD}", f"{number % 2}{ODD}"
    pairs.write_text(json.dumps(rows))
    file.write_text(yaml.safe_dump(document))
    run_study(read_study(file), tmp_path / "out")
    write_report(tmp_path / "out")
    return tmp_path / "out"


def test_no_text_of_a_study_is_markup_in_its_report(odd: Path) -> None:
    html, markdown, latex = (
        (odd / name).read_text("utf-8") for name in ("report.html", "report.md", "tables.tex")
    )
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", html + markdown + latex)
    page = Page(html)
    assert page.open == [] and "x" not in page.references
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    shown = HTMLToText(rendered).text
    line = " ".join(ODD.replace("\x1b", "\\x1b").split())
    assert shown.count(line) >= 8
    tags = set(re.findall(r"<(\w+)", rendered))
    assert tags <= {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    for table in rendered.split("<table>")[1:]:
        rows = table.split("</table>")[0].split("<tr>")[1:]
        assert len({len(re.findall("<t[hd]", row)) for row in rows}) == 1
    assert "\\input" not in latex and "\n\n" not in latex.strip()
    lines = [line for line in latex.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[$#_^~]", "\n".join(lines))
    assert all(not line.lstrip().startswith(("[", "*")) for line in lines)


class HTMLToText(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(markup)

    def handle_data(self, data: str) -> None:
        self.text += data
