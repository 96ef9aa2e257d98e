"""Joint PCA, projections, upsampled maps and aligned poses in studies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from kornia_ditf import (
    DescriptorMap,
    create_descriptor,
    evaluate_pair,
    find_protocol,
    learn_projection,
    load_dataset,
)
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import StudyError
from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.costs import known_costs
from kornia_ditf.study.run.runner import run_study


def test_a_projection_shrinks_the_maps_of_a_study(make_study: Any, tmp_path: Path) -> None:
    model = read_study(make_study()).descriptors[0].source
    settings: dict[str, Any] = {"block": 2, "long_side": 32}
    ditf = create_descriptor("nano", source=model, **settings)
    learn_projection(ditf, [tmp_path / f"pairs-4/{n}.png" for n in range(4)], 6).save(
        tmp_path / "p.safetensors"
    )
    plain = {"name": "nano", "source": model, **settings}
    fused = {"name": "nano+nano", "options": {"options": {"nano": {"source": model, **settings}}}}
    small = {"label": "small", "projection": "p.safetensors"}  # beside the study's file
    study = read_study(make_study(descriptors=[plain, {**plain, **small}, fused]))
    out = tmp_path / "out"
    run_study(study, out)
    summary = json.loads((out / "study.json").read_text())
    assert [each["width"] for each in summary["experiments"]] == [32, 6, 64]
    pair = load_dataset("folder", study.datasets[0].root or "")[0]
    expected = create_descriptor(
        "nano", source=model, **settings, projection=tmp_path / "p.safetensors"
    )
    stored = [DescriptorMap.load(path).data for path in (out / "cache").rglob("*.safetensors")]
    data = expected(pair.image_a).data
    assert (
        sum(each.shape == data.shape and torch.allclose(each, data, atol=1e-5) for each in stored)
        == 1
    )
    learn_projection(ditf, [pair.image_a], 6).save(tmp_path / "p.safetensors")
    run_study(study, out)  # another projection is another descriptor
    again = json.loads((out / "study.json").read_text())["experiments"]
    changed = [
        a["identity"] != b["identity"] for a, b in zip(again, summary["experiments"], strict=True)
    ]
    assert changed == [False, True, False]


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


def test_upsampled_configurations_share_a_forward_and_one_that_is_too_large_fails_by_name(
    make_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = yaml.safe_load(make_study().read_text())
    descriptor = {**study["descriptors"][0], "block": 2, "treatment": "raw"}
    upsample = ["none", "bilinear(2)", "joint_bilateral(2px)"]
    chosen = read_study(make_study(descriptors=[{**descriptor, "upsample": upsample}]))
    seen: list[int] = []
    whole = DiTF.prepared_taps
    monkeypatch.setattr(
        DiTF, "prepared_taps", lambda self, i, *a: seen.append(len(i)) or whole(self, i, *a)
    )
    rows = pq.read_table(run_study(chosen, tmp_path / "out")).to_pylist()
    assert sum(seen) == 4 and len(rows) == 12
    sizes = sorted(path.stat().st_size for path in (tmp_path / "out").rglob("*.safetensors"))
    assert len(sizes) == 12 and sizes[0] < 0.4 * sizes[4]
    large = read_study(
        make_study(descriptors=[{**descriptor, "upsample": "bilinear(2, limit=0.00001)"}])
    )
    with pytest.raises(StudyError, match=r"0\.png: upsampled by bilinear\(2\).* the limit is"):
        run_study(large, tmp_path / "large")


def test_a_protocol_that_aligns_poses_finds_mirrored_images_and_says_so_in_the_records(
    make_study: Any, tmp_path: Path
) -> None:
    document = yaml.safe_load(make_study().read_text())
    place = Path(document["datasets"][0]["root"])
    pairs = json.loads((place / "pairs.json").read_text())
    for pair in pairs:  # each image with its own mirror image
        with Image.open(place / pair["image_a"]) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / f"m{pair['image_a']}")
        pair["image_b"] = f"m{pair['image_a']}"
        pair["points_b"] = [[63 - x, y] for x, y in pair["points_a"]]
    (place / "pairs.json").write_text(json.dumps(pairs))
    descriptor = {**document["descriptors"][0], "block": 2, "treatment": "raw"}
    protocols = ["plain", {"name": "plain", "overrides": {"align": "flips"}}]
    datasets = [{"name": "folder", "root": str(place)}]
    study = read_study(
        make_study(pairs=4, descriptors=[descriptor], datasets=datasets, protocols=protocols)
    )
    (place / "pairs.json").write_text(json.dumps(pairs))
    rows = pq.read_table(run_study(study, tmp_path / "out")).to_pylist()
    aligned = [row for row in rows if row["protocol"] == "plain with align=flips"]
    assert len(rows) == 8 and len(aligned) == 4
    for row in aligned:
        scores = dict(row["scores"])
        assert scores["pose_distance@mirrored"] < 1e-3 < scores["pose_distance@upright"]
        assert max(row["distances"]) < 2 and row["points_a"] in [p["points_a"] for p in pairs]
