"""Joint PCA in studies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kornia_ditf import create_descriptor, evaluate_pair, find_protocol, load_dataset
from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.costs import known_costs
from kornia_ditf.study.run.runner import run_study


def test_widths_of_joint_pca_share_maps_and_are_told(make_study: Any, tmp_path: Path) -> None:
    model = read_study(make_study()).descriptors[0].source
    settings: dict[str, Any] = {"block": 2, "long_side": 32, "massive_channels": []}
    study = read_study(
        make_study(
            descriptors=[{"name": "nano", "source": model, **settings, "pca": [0, 4]}],
            protocols=["plain", {"name": "plain", "overrides": {"pca": 3}}],
        )
    )
    out = tmp_path / "out"
    rows = pq.read_table(run_study(study, out)).to_pylist()
    assert len(list((out / "cache").rglob("*.safetensors"))) == 4  # one for each image

    summary = json.loads((out / "study.json").read_text())
    assert [(e["protocol"]["pca"], e["settings"]["pca"]) for e in summary["experiments"]] == [
        *((0, 0), (0, 4)),
        *((3, 0), (3, 4)),  # what the descriptor says comes first
    ]
    written = {path.name: path for path in write_report(out)}
    assert "pca 4" in written["report.html"].read_text()
    assert len(known_costs(out, summary)) == 2

    ditf = create_descriptor("nano", source=model, **settings)
    pairs = load_dataset("folder", study.datasets[0].root or "")
    plain = find_protocol("plain")
    for row in rows:
        pair = pairs[row["index"]]
        width = 4 if row["descriptor"].endswith("pca 4") else 0
        maps = ditf(pair.image_a), ditf(pair.image_b)
        expected = evaluate_pair(*maps, pair, replace(plain, pca=width)).distances
        assert row["distances"] == pytest.approx(expected.tolist(), abs=1e-4)
