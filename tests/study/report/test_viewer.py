"""The viewer shows what the records hold, in a browser at the width of a desk and of a phone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import DESK, PHONE, opened, overflow

from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import DatasetChoice
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.report.pictures import PairImages
from kornia_ditf.study.report.viewer import view_pairs
from kornia_ditf.study.run.summary import read_summary
from kornia_ditf.utils.cache import write_checked


def view(out: Path, count: int, limit: int = 10**6) -> dict[str, Any]:
    (section,) = analyse(out, read_summary(out))
    choice = DatasetChoice.model_validate(read_summary(out)["study"]["datasets"][0])
    images = PairImages(choice, upright=True, limit_bytes=limit)
    return view_pairs(out / "records.parquet", section, images, count)


def test_answers_are_the_records(reported: Path) -> None:
    shown = view(reported, 4)
    rows = pq.read_table(reported / "records.parquet").to_pylist()
    assert len(shown["names"]) == 4 and len(shown["pairs"]) == 4 and len(shown["images"]) == 4
    for pair in shown["pairs"]:
        for name, answers in zip(shown["names"], pair["answers"], strict=True):
            (row,) = (r for r in rows if r["descriptor"] == name and r["pair"] == pair["name"])
            for place, answer in enumerate(answers):
                places = [row[key][place] for key in ("points_a", "found_b", "true_b")]
                assert answer[:6] == pytest.approx([v for point in places for v in point], abs=0.05)
                assert bool(answer[6]) == row["hits"][0][place]


def test_places_that_are_no_numbers_are_left_out_of_the_page(
    reported: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(reported, tmp_path / "out"))
    table = pq.read_table(out / "records.parquet")
    rows = table.to_pylist()
    for row in rows:
        row["found_b"][0] = [float("nan"), float("inf")]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), out / "records.parquet")
    shown = view(out, 1)
    assert [len(answers) for answers in shown["pairs"][0]["answers"]] == [4, 4, 4, 4]
    json.dumps(shown, allow_nan=False)


def test_a_pair_without_a_match_and_images_that_are_gone_are_said(
    chromium: Any, reported: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(reported, tmp_path / "out"))
    table = pq.read_table(out / "records.parquet")
    rows = table.to_pylist()
    for row in rows:
        if row["pair"] == "pair-0":
            row["found_b"] = [[float("nan")] * 2] * 5
            row["distances"] = [float("inf")] * 5
            row["hits"] = [[False] * 5 for _ in row["hits"]]
        elif row["pair"] == "pair-1":
            row["image_a"] = "gone.png"
    with write_checked(out / "records.parquet") as path:
        pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    summary = read_summary(out)
    summary["records"] = (out / "records.sha256").read_text("utf-8").split()[0]
    with write_checked(out / "study.json") as path:
        path.write_text(json.dumps(summary), "utf-8")
    page = write_report(out)[0]
    for size in (DESK, PHONE):
        with opened(chromium, page, size) as shown:
            viewer = shown.locator(".viewer")
            viewer.locator("select").select_option(label="pair-0")
            viewer.locator(".stage").focus()
            shown.keyboard.press("ArrowRight")
            viewer.locator("svg").first.click()
            told = "pair-0: no descriptor or matcher has a match here."
            assert viewer.locator(".said").inner_text() == told
            viewer.locator("select").select_option(label="pair-1")
            assert "pair-1: point 1 of 5" in viewer.locator(".said").inner_text()
            assert viewer.locator("svg").first.locator("image").count() == 0
            assert overflow(shown) == 0


def test_images_are_left_out_past_a_limit_and_where_they_are_gone(reported: Path) -> None:
    whole = view(reported, 2)
    sizes = [len(image["src"]) for image in whole["images"]]
    small = view(reported, 2, limit=sizes[0])
    assert [image["src"] is not None for image in small["images"]] == [True] + [False] * (
        len(sizes) - 1
    )
    assert {tuple(image["size"]) for image in small["images"]} == {(64, 48)}


def test_a_point_is_chosen_by_a_click_a_button_and_a_key(chromium: Any, reported: Path) -> None:
    with opened(chromium, reported / "report.html") as page:
        viewer = page.locator(".viewer")
        first = viewer.locator(".said").inner_text()
        assert re.search(r"point 1 of 5, at .* in A; right for \d of 4", first)
        viewer.get_by_text("Next point").click()
        assert "point 2 of 5" in viewer.locator(".said").inner_text()
        viewer.locator(".stage").focus()
        page.keyboard.press("ArrowRight")
        assert "point 3 of 5" in viewer.locator(".said").inner_text()
        page.keyboard.press("ArrowDown")
        assert viewer.locator("select").input_value() == "1"
        shown = json.loads(viewer.locator("script").text_content())
        answers = shown["pairs"][1]["answers"]
        for side, place in ((0, 4), (1, 2)):  # at the point in A, or at an answer in B
            chosen = answers[0][place]
            x, y = chosen[0:2] if side == 0 else chosen[2:4]
            box = viewer.locator("svg").nth(side).bounding_box()
            position = {"x": (x + 0.5) * box["width"] / 64, "y": (y + 0.5) * box["height"] / 48}
            viewer.locator("svg").nth(side).click(position=position)
            said = viewer.locator(".said").inner_text()
            row = viewer.locator("tbody tr").first.inner_text()
            assert f"({chosen[0]:g}, {chosen[1]:g}) in A" in said
            assert f"({chosen[2]:.1f}, {chosen[3]:.1f})" in row
            assert ("right" if chosen[6] else "wrong") in row


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_a_report_fits_its_window_and_names_are_no_markup(
    chromium: Any, make_study: Any, tmp_path: Path, reported: Path, size: tuple[int, int]
) -> None:
    odd = "</script><img src=x onerror=document.title='owned'> 'é"
    out = Path(shutil.copytree(reported, tmp_path / "out"))
    text = (out / "report.html").read_text("utf-8")
    assert "pair-1" in text
    escaped = json.dumps(odd).strip('"').replace("<", "\\u003c").replace("'", "\\u0027")
    (out / "report.html").write_text(text.replace('"pair-1"', f'"{escaped}"'), "utf-8")
    with opened(chromium, out / "report.html", size) as page:
        assert overflow(page) == 0 and page.title() != "owned"
        options = page.locator(".viewer option").all_inner_texts()
        assert any("</script>" in each for each in options)


def test_the_number_of_pairs_is_the_reports_choice(make_study: Any, tmp_path: Path) -> None:
    from kornia_ditf.study.run.runner import run_study

    chosen = {"resamples": 100, "permutations": 100, "pictures": 0, "viewer": 0}
    study = read_study(make_study(report=chosen))
    run_study(study, tmp_path / "out")
    assert 'class="viewer"' not in write_report(tmp_path / "out")[0].read_text("utf-8")
