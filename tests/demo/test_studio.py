"""What the demo computes, without a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import kornia_ditf as kd
from kornia_ditf.demo import requests
from kornia_ditf.demo.studio import Setting, Studio, as_python, as_values
from kornia_ditf.errors import InvalidArgumentError

NANO = Setting("nano")


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph, and the same moved by 24 pixels to the left."""
    folder = Path(__file__).parents[2] / "examples/data"
    whole = kd.read_image(folder / "graffiti_a.jpg")[..., 100:356, 100:380]
    return whole[..., :256], whole[..., 24:]


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio(["nano"], long_side=256)


def test_a_clicked_point_is_found_where_the_picture_moved_it(
    studio: Studio, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    found = studio.locate(NANO, *images, (150.0, 120.0))
    (x, y), *others = found.places
    assert abs(x - 126) <= 2 and abs(y - 120) <= 2
    assert found.cycle_error <= 3
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert all(max(abs(x - u), abs(y - v)) > 256 // 40 for u, v in others)


def test_the_similarity_of_a_point_is_the_cosine_with_each_token(
    studio: Studio, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    found = studio.locate(NANO, *images, (150.0, 120.0))
    map_a, map_b = studio.describe(NANO, images[0]), studio.describe(NANO, images[1])
    query = map_a.at(torch.tensor([[[150.0, 120.0]]]))[0, 0]
    expected = torch.cosine_similarity(map_b.data[0], query[:, None, None], dim=0)
    torch.testing.assert_close(found.similarity, expected)


def test_settings_and_fusions_give_the_descriptors_they_name(
    studio: Studio, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    raw = Setting("nano", block=3, treatment="raw")
    expected = kd.create_descriptor("nano", block=3, treatment="raw", long_side=256)
    image = images[0]
    torch.testing.assert_close(studio.describe(raw, image).data, expected(image).data)
    fused = studio.describe(replace(raw, fused_with="nano"), image)
    parts = [expected, kd.create_descriptor("nano", long_side=256)]
    torch.testing.assert_close(fused.data, kd.FusedDescriptor(parts)(image).data)


def test_maps_of_other_settings_and_images_are_not_mixed_up(
    studio: Studio, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    a, b = images
    first = studio.describe(NANO, a).data
    assert not torch.equal(first, studio.describe(NANO, b).data)
    assert not torch.equal(first, studio.describe(Setting("nano", block=3), a).data)
    assert torch.equal(first, studio.describe(NANO, a.clone()).data)
    flat = torch.rand(1, 3, 64, 32)
    assert studio.describe(NANO, flat).grid != studio.describe(NANO, flat.view(1, 3, 32, 64)).grid


@pytest.mark.parametrize(
    ("setting", "point", "words"),
    [
        (Setting("../../etc"), (9.0, 9.0), "descriptor must be one of"),
        (Setting("nano", fused_with="flux.1-dev"), (9.0, 9.0), "descriptor must be one of"),
        (Setting("nano", block=99), (9.0, 9.0), "block of nano must lie in"),
        (Setting("nano", block=-1), (9.0, 9.0), "block"),
        (Setting("nano", timestep=float("nan")), (9.0, 9.0), "timestep"),
        (Setting("nano", treatment="magic"), (9.0, 9.0), "treatment"),
        (NANO, (256.0, 9.0), "must lie in image A"),
        (NANO, (float("nan"), 9.0), "must lie in image A"),
    ],
)
def test_what_cannot_be_computed_is_said(
    studio: Studio,
    images: tuple[torch.Tensor, torch.Tensor],
    setting: Setting,
    point: Any,
    words: str,
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        studio.locate(setting, *images, point)


def test_a_sweep_holds_the_maps_of_each_block_and_timestep(
    studio: Studio, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    cells = studio.sweep(NANO, *images, (150.0, 120.0), [3, 5], [0.0, 100.0])
    assert list(cells) == [(3, 0.0), (5, 0.0), (3, 100.0), (5, 100.0)]
    one = studio.locate(Setting("nano", block=3, timestep=100.0), *images, (150.0, 120.0))
    torch.testing.assert_close(cells[3, 100.0], one.similarity)
    assert requests.draw_sweep(images[1], cells, [3, 5], [0.0, 100.0]).ndim == 3
    with pytest.raises(InvalidArgumentError, match="1 to 24 combinations"):
        studio.sweep(NANO, *images, (1.0, 1.0), [], [0.0])


def test_results_are_given_as_json_and_as_the_same_lines_of_python(
    studio: Studio, images: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    setting = Setting("nano", block=4)
    studio = Studio(["nano"])
    found = studio.locate(setting, *images, (150.0, 120.0))
    assert json.loads(json.dumps(as_values(setting, found)))["setting"]["block"] == 4
    for name, image in zip("ab", images, strict=True):
        kd.save_picture(tmp_path / f"{name}.png", (image[0].permute(1, 2, 0) * 255).byte().numpy())
    code = as_python(setting, found).replace(".jpg", ".png")
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    x, y = found.places[0]
    assert ran.returncode == 0, ran.stderr
    assert f"[[{x:.0f}., {y:.0f}.]]" in ran.stdout.replace(" ", "").replace(",", ", ")
    compile(as_python(setting, studio.match(setting, *images), search=True), "lines", "exec")
    compile(as_python(replace(setting, fused_with="nano"), found), "lines", "exec")


def test_a_large_picture_is_drawn_small_with_its_marks_in_place() -> None:
    image = torch.zeros(1, 3, 700, 2800)
    drawn = requests.draw_point(image, (1400.0, 350.0), (100.0, 100.0))
    assert drawn.shape == (350, 1400, 3)
    assert drawn[175, 700, 0] > 200 > drawn[175, 700, 1]
    assert drawn[50, 50].min() == 255
