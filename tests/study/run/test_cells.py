"""Sweeps, means over timesteps and joined blocks take their forwards from one another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from kornia_ditf import DescriptorMap, create_descriptor, load_dataset
from kornia_ditf.backbones.nano import NanoBackbone
from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.run.costs import known_costs
from kornia_ditf.study.run.plan import plan_study
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.run.summary import read_summary

TIMES = (50, 100, 200)


@pytest.fixture
def study(make_study: Any) -> Any:
    model = read_study(make_study()).descriptors[0].source
    plain: dict[str, Any] = {"name": "nano", "source": model, "long_side": 32}
    return read_study(
        make_study(
            descriptors=[
                {**plain, "block": [1, 2], "timestep": [50, 100]},
                {**plain, "label": "mean", "block": 2, "timesteps": list(TIMES)},
                {**plain, "label": "joined", "blocks": [1, 2], "timestep": 100},
                {**plain, "label": "both", "blocks": [1, 3], "timesteps": [100, 200]},
            ]
        )
    )


def test_each_image_passes_once_for_each_timestep(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards: Counter[float] = Counter()
    whole = NanoBackbone.taps

    def counted(self: Any, latent: Any, timestep: float, *rest: Any, **more: Any) -> Any:
        forwards[timestep] += len(latent)
        return whole(self, latent, timestep, *rest, **more)

    monkeypatch.setattr(NanoBackbone, "taps", counted)
    planned = plan_study(study)
    run_study(study, tmp_path / "out")
    # Four images in which massive channels are sought, and the same four to describe.
    assert forwards == dict.fromkeys(TIMES, 4 + 4)
    assert sum(plan.forwards for plan in planned.groups) == sum(forwards.values())

    summary = read_summary(tmp_path / "out")
    costs = known_costs(tmp_path / "out", summary)
    assert len(costs) == len(summary["experiments"]) == 7

    model = study.descriptors[0].source
    settings: dict[str, Any] = {"source": model, "long_side": 32, "massive_channels": ()}
    single = create_descriptor("nano", **settings, block=2, timestep=100)
    mean = create_descriptor("nano", **settings, block=2, timesteps=TIMES)
    joined = create_descriptor("nano", **settings, blocks=(1, 2), timestep=100)
    both = create_descriptor("nano", **settings, blocks=(1, 3), timesteps=(100, 200))
    stored = [DescriptorMap.load(p).data for p in (tmp_path / "out/cache").rglob("*.safetensors")]
    pair = load_dataset("folder", study.datasets[0].root)[0]
    for descriptor in (single, mean, joined, both):
        expected = descriptor(pair.image_a).data
        same = [each for each in stored if each.shape == expected.shape]
        assert any(torch.allclose(each, expected, atol=1e-5) for each in same)


def test_sweeps_without_a_mean_are_described_timestep_by_timestep(make_study: Any) -> None:
    model = read_study(make_study()).descriptors[0].source
    swept = {"name": "nano", "source": model, "block": [1, 2], "timestep": [50, 100]}
    plan = plan_study(read_study(make_study(descriptors=[swept])))
    assert [group.configurations for group in plan.groups] == [2, 2]
