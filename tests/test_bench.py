from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kornia_ditf.bench import cases, peers, report
from kornia_ditf.bench.__main__ import main
from kornia_ditf.bench.timing import Timing, time_in_turns


@pytest.fixture(autouse=True)
def _own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the benchmark sets for the process must not outlive it here."""
    monkeypatch.setattr(peers, "limit_threads", lambda threads: None)


def test_every_case_runs_and_all_find_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        f"before\n{report.START}\nfigures of another day\n{report.END}\nafter\n", encoding="utf-8"
    )
    arguments = ["--quick", "--rounds", "1", "--json", str(tmp_path / "figures.json")]
    main([*arguments, "--picture", str(tmp_path / "ratios.png"), "--page", str(page)])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"command", "commit", "date", "hardware", "threads", "torch"} <= set(figures["about"])
    groups = {case["group"] for case in figures["cases"]}
    assert len(groups) == 7
    told = capsys.readouterr().out
    for case in figures["cases"]:
        assert case["name"] in told
        for row in case["contestants"].values():
            assert min(row["seconds"]) >= 0
            assert "other" not in (row["exactness"] or "")
            if "cosine" in (row["exactness"] or ""):
                assert float(row["exactness"].rpartition(" ")[2]) > 0.9999
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")
    text = page.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "another day" not in text
    assert all(f"### {group}" in text for group in groups)


def test_a_peer_that_is_not_installed_is_named_and_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "present", lambda *modules: False)
    main(["--quick", "--rounds", "1", "--only", "mutual"])
    told = capsys.readouterr().out
    assert "Post-processing" not in told
    for name in ("kornia match_mnn", "cv2.BFMatcher", "faiss IndexFlatIP"):
        assert f"| {name} | not installed |" in told


@pytest.mark.parametrize("count", [100, 200, 5628])
def test_a_case_has_as_many_vectors_as_its_name_says(count: int) -> None:
    assert [len(each) for each in cases._vectors(count, 4, torch.device("cpu"))] == [count] * 2


def test_contestants_take_turns() -> None:
    order: list[str] = []
    work = {name: lambda name=name: order.append(name) for name in "abc"}  # type: ignore[misc]
    timings, _ = time_in_turns(work, rounds=2, device=torch.device("cpu"), slow=frozenset("c"))
    assert order == ["a", "b", "a", "b", "c", "a", "b", "a", "b"]
    assert [len(timings[name].seconds) for name in "abc"] == [2, 2, 1]


def test_ratios_are_those_of_the_rounds() -> None:
    ours, other = Timing((1.0, 2.0, 4.0), None), Timing((3.0, 4.0, 4.0), None)
    assert other.ratios(ours) == (1.0, 2.0, 3.0)


def test_the_peers_of_points_agree() -> None:
    a, b = cases.scene(16, 6, 6, torch.device("cpu"))
    points = torch.tensor([[3.0, 4.0], [20.0, 30.0]])
    written, hoisted = (
        function(a, b, (40, 50), points)
        for function in (peers.points_as_written, peers.points_hoisted)
    )
    assert torch.equal(written, hoisted)


def test_who_has_one_turn_is_compared_with_the_others_median() -> None:
    assert Timing((6.0,), None).ratios(Timing((1.0, 2.0, 9.0), None)) == (3.0, 3.0, 3.0)
