"""A study's folder belongs to one run, and nothing outside of it is written to."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from kornia_ditf.errors import OutputError, StudyError
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run.runner import run_study


def test_two_runs_in_one_folder_are_refused(small_study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".owner").write_text("process 7 on a host")
    with FileLock(out / ".lock"), pytest.raises(StudyError, match="process 7 on a host"):
        run_study(small_study, out)


@pytest.mark.parametrize(
    "name", ["report.md", "records", "prepared", ".lock", "costs.jsonl", "cache/ab", "deep/in/it"]
)
def test_links_that_lead_out_of_the_folder_are_refused_and_what_they_lead_to_stays(
    small_study: Study, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    link = tmp_path / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(precious)
    with pytest.raises(OutputError, match="leads out of"):
        run_study(small_study, tmp_path / "out")
    assert precious.read_text() == "precious" and link.is_symlink()


def test_a_link_within_the_folder_is_no_fault(small_study: Study, tmp_path: Path) -> None:
    (tmp_path / "out/elsewhere").mkdir(parents=True)
    (tmp_path / "out/cache").symlink_to("elsewhere")
    run_study(small_study, tmp_path / "out")
    assert list((tmp_path / "out/elsewhere").rglob("*.safetensors"))
