"""Matchers beside descriptors in a study, whatever they do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kornia_ditf import load_dataset
from kornia_ditf.errors import InvalidArgumentError, MatcherError, StudyError
from kornia_ditf.protocols.protocol import Fit
from kornia_ditf.registry import lookup
from kornia_ditf.study.define.parsing import parse_study, read_study
from kornia_ditf.study.define.spec import MatcherChoice
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.apart import MatcherProcess
from kornia_ditf.study.run.experiments import matcher_identity
from kornia_ditf.study.run.plan import plan_study
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.share.merge import merge_studies

PLUGIN = """
import os, time
from pathlib import Path
from kornia_ditf import hookimpl

def make(kind):
    import torch
    from kornia_ditf import ImageMatcher, Matches

    class Odd(ImageMatcher):
        calls = 0

        def features(self, image, name):
            with Path(os.environ["ODD_RECORD"]).open("a") as file:
                file.write(name + "\\n")
            return image

        def compare(self, a, b):
            Odd.calls += 1
            if kind == "moody" and Odd.calls == 1:
                raise ValueError("it <b>does</b> not like | this")
            if kind == "hangs":
                time.sleep(1000)
            if kind == "dies":
                os._exit(3)
            points = torch.rand(9, 2, generator=torch.Generator().manual_seed(0)) * 30
            return Matches(points, points / 0 if kind == "moody" else points, points[:, 0])

    return Odd()

@hookimpl
def register_matchers():
    from functools import partial
    from kornia_ditf import MatcherSpec
    return [
        MatcherSpec(name=name, load=partial(make, name), source="a test", license="CC0")
        for name in ("odd", "moody", "hangs", "dies")
    ]
"""


@pytest.fixture(autouse=True)
def _plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a plugin that every process of the test finds."""
    site = tmp_path / "site"
    info = site / "kornia_ditf_odd-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "plugin_of_odd_matchers.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kornia-ditf-odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kornia_ditf]\nodd = plugin_of_odd_matchers\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("KORNIA_DITF_PLUGINS", "odd")
    monkeypatch.setenv("ODD_RECORD", str(tmp_path / "told.txt"))
    lookup.forget_plugins()
    yield
    monkeypatch.undo()
    lookup.forget_plugins()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    for name in "ab":
        Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).save(
            place / f"{name}.png"
        )
        noise = noise[:, ::-1]
    return place


def study_of(folder: Path, matchers: str, protocols: str = "plain-pose") -> Any:
    return parse_study(
        f"{{name: matchers, matchers: {matchers}, protocols: {protocols}, report: {{pictures: 0}}, "
        f"datasets: [{{name: synthetic, root: {folder}, split: pose, options: {{points: 8}}}}]}}"
    )


def test_whatever_a_matcher_does_one_cell_says_so(folder: Path, tmp_path: Path, heard: Any) -> None:
    listed = "[odd, moody, {name: hangs, timeout: 1}, akaze, {name: nobody, label: '<i>$x$'}]"
    out = tmp_path / "out"
    records = run_study(study_of(folder, listed), out, watcher=heard)
    rows = pq.read_table(records).to_pylist()
    assert {row["descriptor"] for row in rows} == {"odd"} and len(rows) == 2
    document = json.loads((out / "study.json").read_text())
    failed = {each["descriptor"]: each["reason"] for each in document["failed"]}
    assert "ValueError: it <b>does</b> not like | this" in failed["moody"]
    assert "(and 1 more reasons)" in failed["moody"]  # NaN, on the other pair
    assert "longer than 1 s" in failed["hangs"] and "has no AKAZE" in failed["akaze"]
    assert "no matcher is named 'nobody'" in failed["<i>$x$"]
    assert len(heard.warnings) == 4
    write_report(out)
    page = (out / "report.html").read_text()
    assert "no score: ValueError: it &lt;b&gt;does&lt;/b&gt; not like | this" in page
    assert "&lt;i&gt;$x$" in page and "<i>$x$" not in page
    text = (out / "report.md").read_text()
    assert "no score: ValueError: it \\<b>does\\</b> not like \\| this" in text


def test_a_matcher_whose_process_dies_is_named(folder: Path) -> None:
    pair = load_dataset("synthetic", folder, split="pose", points=8)[0]
    process = MatcherProcess(MatcherChoice(name="dies", timeout=60))
    for _ in range(2):  # it is not started again
        with pytest.raises(MatcherError, match=f"ended with code 3 at the pair {pair.name}"):
            process.match(pair, ["a", "b"], Fit())


def test_a_study_without_any_score_says_why(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="nothing has a score: akaze: .*has no AKAZE"):
        run_study(study_of(folder, "[akaze]"), tmp_path / "out")


def test_a_finished_matcher_is_not_started_again_and_reads_each_image_once(
    folder: Path, tmp_path: Path, heard: Any
) -> None:
    told = tmp_path / "told.txt"
    study = study_of(folder, "[odd]", "[plain, plain-pose]")
    path = run_study(study, tmp_path / "out")
    read = told.read_text().split()
    assert sorted(read) == sorted(set(read)) and {"a.png", "b.png"} < set(read)
    before = path.read_bytes()
    run_study(study, tmp_path / "out", watcher=heard)
    assert heard.total("matching pairs") == 0 and path.read_bytes() == before
    assert told.read_text().split() == read


def test_descriptors_and_matchers_that_ran_apart_merge_into_the_whole(
    make_study: Any, tmp_path: Path
) -> None:
    whole = read_study(make_study(matchers=["odd"], report={"pictures": 0, "resamples": 200}))
    for name, changes in (("a", {"matchers": []}), ("b", {"descriptors": []}), ("whole", {})):
        run_study(whole.model_copy(update=changes), tmp_path / name)
    merged = merge_studies([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert merged.read_bytes() == (tmp_path / "whole" / merged.name).read_bytes()
    for name in ("merged", "whole"):
        write_report(tmp_path / name)
    tables = [(tmp_path / name / "tables.tex").read_bytes() for name in ("merged", "whole")]
    assert tables[0] == tables[1] and b"odd" in tables[0]


def test_a_study_needs_something_to_compare_and_labels_are_unique(folder: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="name `descriptors`, `matchers` or both"):
        study_of(folder, "[]").configurations()
    with pytest.raises(InvalidArgumentError, match="two descriptors or matchers are called 'sift'"):
        study_of(folder, "[sift, sift]")
    with pytest.raises(InvalidArgumentError, match=r"there is no key 'matchers\[0\]\.option'"):
        study_of(folder, "[{name: sift, option: {}}]")


def test_matchers_count_in_the_plan(folder: Path) -> None:
    planned = plan_study(study_of(folder, "[sift, orb]"))
    assert planned.configurations == 2 and planned.scored == 4
    assert planned.seconds is not None and planned.seconds >= 8


def test_an_identity_changes_with_the_files_that_a_matcher_reads(
    folder: Path, tmp_path: Path
) -> None:
    def identity() -> str:
        options = f"{{features: {tmp_path / 'f.h5'}, matches: none.h5}}"
        study = study_of(folder, f"[{{name: hloc, options: {options}}}]")
        return matcher_identity(study.matchers[0])

    (tmp_path / "f.h5").write_bytes(b"one")
    first = identity()
    (tmp_path / "f.h5").write_bytes(b"two")
    assert identity() != first and "odd 1.0" in first
