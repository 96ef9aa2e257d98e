"""Costs beside accuracy: columns that were measured, and no others."""

from __future__ import annotations

from mmap import PAGESIZE, mmap
from pathlib import Path

import pytest
import torch

from kornia_ditf.protocols.presets import find_protocol
from kornia_ditf.study.define.jobs import Compare, Outcome
from kornia_ditf.study.define.spec import DatasetChoice, MatcherChoice
from kornia_ditf.study.report.analysis import Row
from kornia_ditf.study.report.costing import cost_columns, pair_seconds, peak_gigabytes
from kornia_ditf.study.run.costs import Cost, CostLog, cost_key
from kornia_ditf.utils import measuring
from kornia_ditf.utils.measuring import Meter, count_flops


def row(cost: Cost, **settings: object) -> Row:
    return Row("x", (), {"bytes_held": 0, "device": "cpu", "settings": settings}, cost)


def test_only_what_was_measured_has_a_column() -> None:
    rows = [row(Cost(1.5, 2, 0.5, peak_bytes=3e9)), row(Cost(flops=2e12), dtype="bfloat16")]
    assert cost_columns(rows) == {
        "s per image": ["1.5", "-"],
        "configurations per forward": ["2", "1"],
        "s per pair": ["0.5", "-"],
        "peak memory, GB": ["3", "-"],
        "GFLOP": ["-", "2e+03"],
    }
    assert rows[1].place == "cpu, bfloat16"
    assert pair_seconds(rows[0]) == 3.5 and pair_seconds(rows[1]) is None
    assert peak_gigabytes(rows[0]) == 3.0 and peak_gigabytes(rows[1]) is None


def test_costs_of_a_matcher_are_read_back(tmp_path: Path) -> None:
    log, matcher = CostLog(tmp_path), MatcherChoice(name="sift")
    data = DatasetChoice(name="folder")
    job = Compare(data, "sift", find_protocol("plain"), "records", (), matcher)
    for peak, joules in ((5.0, 8.0), (4.0, 2.0)):
        outcome = Outcome(seconds=[1.0, 3.0], image_seconds=[7.0])
        outcome.costs |= {"peak_bytes": peak, "joules": joules}
        log.add(job, outcome)
    assert log.read()[cost_key("sift")] == Cost(7.0, 1, 2.0, peak_bytes=5.0, joules=2.5)


def test_operations_are_counted() -> None:
    a = torch.ones(8, 16)
    product, flops = count_flops(lambda: a @ a.T)
    assert flops == 2 * 8 * 16 * 8 and product[0, 0] == 16


def touch(size: int) -> None:
    """Fill pages that are new, never memory that the process freed and still holds."""
    with mmap(-1, size) as held:
        for start in range(0, size, PAGESIZE):
            held[start] = 1


def test_a_peak_of_memory_is_that_since_the_measuring_began() -> None:
    size, meter = 1 << 25, Meter("cpu")
    touch(4 * size)
    high, meter = meter.read(), Meter("cpu")
    low = meter.read()
    touch(size)
    found = meter.read()
    assert set(found) == ({"peak_bytes"} if meter.renewed else set())
    if meter.renewed:
        assert high["peak_bytes"] - low["peak_bytes"] > 3 * size
        assert found["peak_bytes"] - low["peak_bytes"] > 0.5 * size


def test_a_peak_that_cannot_be_started_anew_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_CLEAR", tmp_path)  # a folder: writing is refused
    assert Meter("cpu").read() == {}
