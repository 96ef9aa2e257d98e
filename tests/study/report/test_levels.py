from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.report.levels import level_curves
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.run.summary import read_finished


def test_levels_of_several_corruptions_in_one_definition_are_curves_and_tables(
    make_study: Any, tmp_path: Path
) -> None:
    document = yaml.safe_load(make_study(pairs=2).read_text())
    plain = document["datasets"][0]
    corrupt = [{"kind": "noise", "level": [0.5, 0.1], "seed": 3}, {"kind": "scale", "level": 2}]
    descriptor = {**document["descriptors"][0], "block": 2}
    datasets = [{**plain, "corrupt": corrupt}, {**plain, "label": "clean"}]
    study = read_study(make_study(pairs=2, descriptors=[descriptor], datasets=datasets))
    labels = [each.label for each in study.datasets]
    assert labels == ["folder, noise 0.5", "folder, noise 0.1", "folder, scale 2", "clean"]
    out = tmp_path / "out"
    run_study(study, out)
    sections = analyse(out, read_finished(out))
    noise, scale = level_curves(study, sections)
    assert (noise.dataset, noise.seed, noise.levels) == ("folder", 3, (0.0, 0.1, 0.5))
    assert scale.levels == (1.0, 2.0) and noise.pairs == (2, 2, 2)
    by_label = {section.dataset: section for section in sections}
    for curve, row in zip(noise.curves, by_label["folder, noise 0.5"].rows, strict=True):
        assert curve.label == row.descriptor and noise.value(curve, 0.5) == row.values[0]
    clean = by_label["clean"].rows[1].values[0]
    assert noise.value(noise.curves[1], 0.0) == scale.value(scale.curves[1], 1.0) == clean
    write_report(out)
    page, text = ((out / name).read_text() for name in ("report.html", "report.md"))
    assert "folder over noise, by plain" in page and "drawn with the seed 3" in page
    assert page.count("with its confidence interval.</figcaption>") > 4
    assert "| descriptor | 0 | 0.1 | 0.5 |" in text
