"""A plan says beforehand what a run will do, and loads no weights for it."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from originals import weights_of
from safetensors.torch import save_file

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.registry.lookup import find_backbone
from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run import plan, preparation, speed
from kornia_ditf.study.run.plan import plan_study
from kornia_ditf.study.run.runner import run_study


def test_what_is_planned_is_what_is_done(small_study: Study, tmp_path: Path, heard: Any) -> None:
    planned = plan_study(small_study)
    run_study(small_study, tmp_path / "out", watcher=heard)
    assert planned.configurations == 4
    assert planned.scored == heard.total("scoring pairs") == 16
    (group,) = planned.groups
    assert group.images == heard.total("describing images") == 4
    assert group.forwards == 4 + 4  # massive channels are sought in four images
    # nano takes 4 x 4 pixels a token: 32 x 24 pixels are 8 x 6, of 160 channels in float32.
    assert group.cache_bytes == 4 * 4 * (8 * 6) * 160 * 4


def test_noise_draws_and_groups_are_counted(make_study: Any) -> None:
    source = read_study(make_study()).descriptors[0].source
    descriptor = {"name": "nano", "source": source, "block": 1, "timestep": [0, 100], "ensemble": 3}
    planned = plan_study(read_study(make_study(descriptors=[{**descriptor, "treatment": "raw"}])))
    assert [(group.images, group.forwards) for group in planned.groups] == [(4, 12), (4, 12)]


def test_the_weights_of_a_single_file_are_planned_as_those_of_its_folder(
    make_study: Any, tmp_path: Path
) -> None:
    file = tmp_path / "nano.safetensors"
    save_file(weights_of(Path(find_backbone("nano").repo)), file)
    planned = [
        plan_study(read_study(make_study(descriptors=[{"name": "nano", **source}]))).groups[0]
        for source in ({}, {"source": str(file)})
    ]
    assert planned[0].weights_bytes == planned[1].weights_bytes is not None


def test_no_weight_is_read(small_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from kornia_ditf.study.run import worker

    def refuse(*given: Any, **named: Any) -> Any:
        raise AssertionError("a plan must not load a descriptor")

    monkeypatch.setattr(worker, "create_descriptor", refuse)
    assert plan_study(small_study).seconds is not None


def test_a_part_is_planned_as_it_is_run(small_study: Study) -> None:
    whole, half = plan_study(small_study), plan_study(small_study, part=(1, 2))
    assert (whole.scored, half.scored) == (16, 8)
    assert half.groups[0].images < whole.groups[0].images


def test_a_plan_says_where_each_number_comes_from(
    small_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    described, scored = plan_study(small_study).stages
    assert described.how.startswith("by arithmetic") and scored.how.startswith("measured here")
    assert (described.seconds or 0) > 0 and (scored.seconds or 0) > 0
    monkeypatch.setattr(speed.Speed, "scoring", lambda *given: None)  # its budget is used up
    assert plan_study(small_study).stages[1].how == "partly a guess of 0.1 s per pair"
    there = plan_study(small_study, device="cuda:63")
    assert there.notes == ("there is no device 'cuda:63' here; speeds are those of the CPU",)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("dinov2-base", {"facets": "key"}, "has no option 'facets'; did you mean 'facet'?"),
        ("dinov2-base", {"facet": "keys"}, "facet must be one of token, key, query, value"),
        ("sd2.1", {"up_ft": 1}, "sd2.1 has no option 'up_ft'; did you mean 'up_ft_index'?"),
        ("sd2.1", {"timestep": 2000}, "timestep must lie in"),
    ],
)
def test_options_of_plugins_are_checked_before_a_weight_is_loaded(
    make_study: Any, name: str, options: dict[str, Any], told: str
) -> None:
    pytest.importorskip("kornia_ditf_dino")
    study = read_study(make_study(descriptors=[{"name": name, "options": options}]))
    with pytest.raises(InvalidArgumentError, match=re.escape(told)):
        plan_study(study)


@pytest.mark.parametrize(
    ("kind", "name", "options", "told"),
    [
        ("matchers", "sift", {"rato": 0.8}, "sift has no option 'rato'; did you mean 'ratio'?"),
        ("matchers", "loftr", {"pretraind": "indoor"}, "did you mean 'pretrained'?"),
        ("matchers", "disk-lightglue", {"name": "disk"}, "disk-lightglue has no option 'name'"),
        ("matchers", "nano", {"detector": "sift", "blok": 3}, "nano has no option 'blok'"),
        ("matchers", "nano", {"timestep": 2000}, "timestep must lie in"),
        ("matchers", "orb", {"verification": "affine"}, "homography, fundamental, got 'affine'"),
        ("matchers", "orb", {"long_side": 320}, ""),
        ("matchers", "nano", {"detector": "sift", "long_side": 320, "tiles": 2}, ""),
        ("descriptors", "nano+nano", {"devise": "cpu"}, "nano has no option 'devise'"),
        ("descriptors", "nano+nano", {"options": {"sd": {}}}, "by parts of nano+nano"),
        ("descriptors", "nano+nano", {"options": {"nano": {"timestep": 2000}}}, "must lie in"),
        ("descriptors", "nano+nano", {"weights": [1, 2], "options": {"nano": {"block": 3}}}, ""),
    ],
)
def test_options_of_matchers_and_of_parts_of_fusions_are_checked_by_a_plan(
    make_study: Any, kind: str, name: str, options: dict[str, Any], told: str
) -> None:
    chosen = {"descriptors": [], kind: [{"name": name, "options": options}]}
    study = read_study(make_study(**chosen))
    with pytest.raises(InvalidArgumentError, match=re.escape(told)) if told else nullcontext():
        plan_study(study)


def test_a_plan_says_what_a_matcher_lacks(make_study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "missing_for", lambda spec: "a package" * (spec.name == "orb"))
    study = read_study(make_study(descriptors=[], matchers=["sift", "orb"]))
    assert plan_study(study).notes == ("orb will have no score: a package",)


def test_times_are_measured_ones_where_the_study_ran(small_study: Study, tmp_path: Path) -> None:
    assert not plan_study(small_study, tmp_path / "out").measured
    run_study(small_study, tmp_path / "out")
    planned = plan_study(small_study, tmp_path / "out")
    assert planned.measured and planned.seconds is not None and planned.seconds > 0


def test_a_group_is_loaded_once_for_all_data_sets(small_study: Study) -> None:
    from kornia_ditf.study.define.forwards import group_configurations
    from kornia_ditf.study.define.listing import list_study

    groups = group_configurations(small_study.configurations())
    assert len(groups) == 1 and len(groups[0].members) == 4
    assert len(preparation.tasks_of(groups, list_study(small_study) * 2)) == 2
    assert plan._grid((48, 64), preparation.Fit(kind="squash", side=32), None, 4) == (8, 8)
