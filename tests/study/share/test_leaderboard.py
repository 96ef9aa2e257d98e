"""A leaderboard joins what was measured alike, and works in a browser from a file."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import DESK, PHONE, opened, overflow

from kornia_ditf.errors import StudyError
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.run.summary import read_summary
from kornia_ditf.study.share.bundle import bundle_study
from kornia_ditf.study.share.leaderboard import collect_bundles, write_leaderboard

ODD = "=<img src=x onerror=document.title='owned'>\x1b"


def only(study: Study, **settings: Any) -> Study:
    chosen = study.descriptors[0].model_copy(update={"treatment": ["raw"], **settings})
    return study.model_copy(update={"descriptors": [chosen]})


@pytest.fixture(scope="module")
def bundles(studies: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study, one with a hostile label on the same pairs, a part of it, and rubbish."""
    folder = tmp_path_factory.mktemp("bundles")
    bundle_study(studies("whole"), folder)
    bundle_study(studies("odd label", only(studies.study(), block=[1], label=ODD)), folder)
    bundle_study(studies("part 1", part=(1, 2)), folder)
    broken = folder / "broken-0123456789abcdef"
    shutil.copytree(studies("whole"), broken, ignore=shutil.ignore_patterns("cache", "records"))
    (broken / "study.json").write_text("<script>")
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("no bundle")
    return folder


@pytest.fixture(scope="module")
def site(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    write_leaderboard(collect_bundles(bundles), out)
    return out


def test_results_on_the_same_pairs_stand_in_one_board_with_the_reports_values(
    studies: Any, bundles: Path
) -> None:
    found = collect_bundles(bundles)
    assert sorted((board.pairs, len(board.entries)) for board in found.boards) == [(2, 4), (4, 5)]
    assert [sentence.split(":")[0] for sentence in found.left_out] == [
        "broken-0123456789abcdef is left out"
    ]
    (section,) = analyse(studies("whole"), read_summary(studies("whole")))
    board = next(board for board in found.boards if board.pairs == 4)
    values = {entry.row.descriptor: entry.row.values[0].value for entry in board.entries}
    for row in section.rows:
        assert values[row.descriptor] == row.values[0].value
    assert [e.row.values[0].value for e in board.entries] == sorted(values.values(), reverse=True)
    assert {entry.license for entry in board.entries} == {"Apache-2.0"}
    assert all(entry.costs["seconds_per_pair"] for entry in board.entries)
    # Of maps that were there already, nothing of describing was measured.
    assert any(entry.costs["cache_mb"] for entry in board.entries)


def test_the_same_bundles_give_the_same_bytes(bundles: Path, site: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(bundles, tmp_path / "moved"))
    for path in write_leaderboard(collect_bundles(moved), tmp_path / "site"):
        assert path.read_bytes() == (site / path.name).read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


def test_a_spreadsheet_runs_no_label(site: Path) -> None:
    with (site / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 * 9 and any(r["descriptor"].startswith("'=<img") for r in rows)
    assert not any(value[:1] in ("=", "+", "@") for row in rows for value in row.values())


def test_a_folder_without_bundles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no bundle in .* study bundle DIR"):
        collect_bundles(tmp_path)
    with pytest.raises(StudyError, match="cannot read .*; name a folder"):
        collect_bundles(tmp_path / "nowhere")


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_rows_are_filtered_and_sorted_in_a_browser(
    chromium: Any, site: Path, size: tuple[int, int]
) -> None:
    with opened(chromium, site / "index.html", size) as page:
        assert overflow(page) == 0 and page.title() == "Leaderboard of kornia_ditf studies"
        status, rows = page.get_by_role("status"), page.locator("tbody tr:visible")
        assert status.inner_text().startswith("9 rows in 2 tables") and rows.count() == 9
        page.get_by_label("descriptor has").fill("IMG")
        assert status.inner_text().startswith("1 row in 1 table.") and rows.count() == 1
        page.get_by_role("button", name="Reset").click()
        page.get_by_label("s per image, at most").fill("0")
        assert rows.count() == 0
        page.get_by_role("button", name="Reset").click()
        page.get_by_label("cache per image, MB, at most").fill("1e-6")
        assert rows.count() == 0
        page.get_by_role("button", name="Reset").click()
        page.get_by_label("licence").select_option("Apache-2.0")
        page.get_by_label("task").select_option("keypoints")
        assert rows.count() == 9
        table = page.locator("section").nth(0)
        head = table.locator("thead th").nth(1)
        first = [
            float(v.get_attribute("data-value")) for v in table.locator("td:nth-child(2)").all()
        ]
        assert head.get_attribute("aria-sort") == "descending" and first == sorted(first)[::-1]
        head.locator("button").focus()
        page.keyboard.press("Enter")
        again = [
            float(v.get_attribute("data-value")) for v in table.locator("td:nth-child(2)").all()
        ]
        assert head.get_attribute("aria-sort") == "ascending" and again == sorted(first)
        assert "broken-0123456789abcdef is left out" in page.inner_text("main")


class FakeHub:
    """Stands for huggingface_hub's API and keeps what is pushed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refusal: Exception | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.made: list[tuple[str, str]] = []
        self.refusal = refusal
        monkeypatch.setattr("huggingface_hub.HfApi.create_repo", self._create)
        monkeypatch.setattr("huggingface_hub.HfApi.create_commit", self._commit)

    def _create(self, repo: str, *, repo_type: str, exist_ok: bool) -> None:
        if self.refusal is not None:
            raise self.refusal
        assert exist_ok
        self.made.append((repo, repo_type))

    def _commit(self, repo: str, operations: Any, *, commit_message: str, repo_type: str) -> Any:
        from types import SimpleNamespace

        for each in operations:
            with each.as_file() as file:
                self.files[each.path_in_repo] = file.read()
        return SimpleNamespace(commit_url=f"https://hub/{repo}")


def test_a_leaderboard_is_pushed_with_its_bundles_and_nothing_else(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kornia_ditf.study.share.hub import push_leaderboard

    hub = FakeHub(monkeypatch)
    found = collect_bundles(bundles)
    write_leaderboard(found, tmp_path)
    assert push_leaderboard(found, tmp_path, "me/results") == "https://hub/me/results"
    assert hub.made == [("me/results", "dataset")]
    assert len(hub.files) == 3 + 4 * 3 and {"index.html", "README.md"} <= set(hub.files)
    name = found.bundles[0].name
    pushed = json.loads(hub.files[f"bundles/{name}/study.json"])
    assert pushed == json.loads((bundles / name / "study.json").read_text())


def test_a_push_that_fails_says_what_to_do(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import (
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    from kornia_ditf.errors import DiTFError
    from kornia_ditf.study.share.hub import push_leaderboard

    found = collect_bundles(bundles)
    write_leaderboard(found, tmp_path)
    for refusal, message in (
        (LocalTokenNotFoundError("no token"), "run `hf auth login` with a token that may write"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        (HFValidationError("bad"), "--push must be USER/NAME, got 'a/b/c'"),
    ):
        FakeHub(monkeypatch, refusal)
        with pytest.raises(DiTFError, match=message):
            push_leaderboard(found, tmp_path, "a/b/c")
