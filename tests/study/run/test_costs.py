"""The log of costs outlives torn lines and gives medians."""

from __future__ import annotations

from pathlib import Path

from kornia_ditf.protocols.presets import find_protocol
from kornia_ditf.study.define.jobs import Evaluate, Outcome
from kornia_ditf.study.define.spec import DatasetChoice
from kornia_ditf.study.run.costs import CostLog, cost_key


def test_medians_are_read_back_whatever_else_the_file_holds(tmp_path: Path) -> None:
    log = CostLog(tmp_path)
    assert log.read() == {}
    job = Evaluate(
        DatasetChoice(name="folder"), "nano", find_protocol("plain"), "records", (), "cpu"
    )
    log.add(job, Outcome(seconds=[1.0, 2.0, 9.0]))
    with log.path.open("ab") as file:
        file.write(b'\n5\n{"what": "describe"}\n{"what": "evaluate", "seconds": "x"}\n\xff\n{"wha')
    log.add(job, Outcome(seconds=[3.0, 4.0]))
    (found,) = log.read().values()
    assert list(log.read()) == [cost_key("nano")]
    assert found.seconds_per_pair == 3.0 and found.seconds_per_image is None


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    log = CostLog(tmp_path / "missing")
    job = Evaluate(
        DatasetChoice(name="folder"), "nano", find_protocol("plain"), "records", (), "cpu"
    )
    log.add(job, Outcome(seconds=[1.0]))
    assert log.read() == {}
