"""Pictures of an inspection that is made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kornia_ditf.massive import describe_channels
from kornia_ditf.viz.channels import draw_channels, draw_treatments
from kornia_ditf.viz.inspection import COMPARED, Inspection


@pytest.fixture
def inspection() -> Inspection:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 24, 100, generator=generator)
    tokens[..., 90] = 400
    statistics = {block: describe_channels(tokens) for block in range(40)}
    ramp = torch.linspace(0.2, 1, 24).reshape(4, 6)
    similarity = {"raw": torch.ones(4, 6), "adaln": ramp, "adaln+discard": ramp.flip(0)}
    gates, contrast = (90,), dict.fromkeys(COMPARED, 0.5)
    return Inspection(statistics, 3, (90,), gates, (8.0, 8.0), similarity, contrast)


def test_a_massive_channel_is_a_bright_column(inspection: Inspection) -> None:
    picture = draw_channels(inspection, count=10)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    bright = (picture[..., 0] > 200) & (picture[..., 1] > 200) & (picture[..., 2] < 200)
    columns = np.flatnonzero(bright.sum(0) > 0.4 * picture.shape[0])
    assert 20 < len(columns) < 0.3 * picture.shape[1]


def test_the_channels_of_gates_are_crossed(inspection: Inspection) -> None:
    crossed = draw_channels(inspection, count=10)
    plain = draw_channels(replace(inspection, gates=None), count=10)
    assert 0 < (crossed != plain).any(-1).sum() < 300


def test_maps_that_differ_are_drawn_differently(inspection: Inspection) -> None:
    picture = draw_treatments(inspection, torch.full((1, 3, 64, 96), 0.5)).astype(int)
    first, second = np.array_split(picture[:, : picture.shape[1] * 2 // 3], 2, axis=1)
    width = min(first.shape[1], second.shape[1])
    assert np.abs(first[:, :width] - second[:, :width]).mean() > 10


def test_drawing_leaves_no_figure_behind(inspection: Inspection) -> None:
    import sys

    draw_channels(inspection)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
