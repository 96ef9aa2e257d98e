"""Pictures show the points where they are, in the colours that the caption explains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.preprocess import read_image
from kornia_ditf.types import Matches
from kornia_ditf.viz.matches import _spread, draw_matches
from kornia_ditf.viz.similarity import draw_similarity

GREY = torch.full((1, 3, 300, 450), 0.5)  # two of them fill a canvas at their own size
GAP = 12


def some_matches(count: int, seed: int = 0) -> Matches:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, count, 2, generator=generator) * torch.tensor([449.0, 299.0])
    return Matches(points[0], points[1], torch.rand(count, generator=generator))


def is_colour(pixels: np.ndarray, red: bool) -> np.ndarray:
    """Where a pixel is rather red, or rather green."""
    low, high = (1, 0) if red else (0, 1)
    signed = pixels.astype(int)
    return signed[..., high] - signed[..., low] > 80


def test_inliers_are_green_and_outliers_red_at_both_of_their_ends() -> None:
    points_a = torch.tensor([[60.0, 50.0], [400.0, 250.0]])
    points_b = torch.tensor([[90.0, 80.0], [300.0, 200.0]])
    matches = Matches(points_a, points_b, torch.tensor([0.9, 0.8]))
    picture = draw_matches(GREY, GREY, matches, inliers=torch.tensor([True, False]))
    assert is_colour(picture[50, 60], red=False) and is_colour(picture[80, 450 + GAP + 90], False)
    assert is_colour(picture[250, 400], red=True) and is_colour(picture[200, 450 + GAP + 300], True)


def test_a_higher_score_has_a_brighter_colour() -> None:
    points = torch.tensor([[60.0, 50.0], [60.0, 150.0], [60.0, 250.0]])
    matches = Matches(points, points, torch.tensor([0.2, 0.5, 0.9]))
    picture = draw_matches(GREY, GREY, matches)
    brightness = [int(picture[int(y), 60].sum()) for y in points[:, 1]]
    assert brightness == sorted(brightness) and len(set(brightness)) == 3


def test_images_of_different_sizes_keep_their_proportions_and_points() -> None:
    small = torch.zeros(3, 100, 150)
    point_b = torch.tensor([[225.0, 150.0]])
    matches = Matches(torch.tensor([[75.0, 50.0]]), point_b, torch.tensor([0.9]))
    picture = draw_matches(small, GREY, matches, inliers=torch.tensor([True]))
    zoom = 900 / 600
    assert picture.shape[1] == round(150 * zoom) + GAP + round(450 * zoom)
    middle = round(300 * zoom) // 2
    for x in (round(75 * zoom), round(150 * zoom) + GAP + round(225 * zoom)):
        assert is_colour(picture[middle, x], red=False)


def test_what_is_drawn_is_spread_over_the_image_and_best_in_each_part() -> None:
    # A crowd of excellent matches in one corner, and mediocre ones everywhere.
    crowd = some_matches(500)
    crowd = Matches(crowd.points_a / 20, crowd.points_b, crowd.scores * 0.1 + 0.9)
    wide = some_matches(500, seed=1)
    matches = Matches(
        torch.cat([crowd.points_a, wide.points_a]),
        torch.cat([crowd.points_b, wide.points_b]),
        torch.cat([crowd.scores, wide.scores * 0.5]),
    )
    chosen = _spread(matches, (300, 450), 60)
    assert len(chosen) == len(set(chosen.tolist())) == 60
    assert int(matches.scores.argmax()) == chosen[0]
    assert (chosen < 500).sum() < 10
    points = matches.points_a[chosen]
    quarters = {(bool(x > 225), bool(y > 150)) for x, y in points.tolist()}
    assert len(quarters) == 4
    assert (matches.scores[chosen].diff() <= 0).all()


def test_few_matches_are_all_drawn_best_first() -> None:
    matches = some_matches(7)
    assert _spread(matches, (300, 450), 60).tolist() == matches.scores.argsort().flip(0).tolist()


@pytest.mark.parametrize("inliers", [None, torch.zeros(0, dtype=torch.bool)])
def test_no_matches_give_a_picture_without_lines(inliers: torch.Tensor | None) -> None:
    empty = Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
    picture = draw_matches(GREY, GREY, empty, inliers=inliers)
    assert (picture[:300, :450] == picture[0, 0]).all()


@pytest.mark.parametrize("size", [(8, 8), (3000, 40), (40, 3000), (2500, 2500)])
def test_a_picture_has_a_size_for_a_screen(size: tuple[int, int]) -> None:
    image = torch.full((1, 3, *size), 0.5)
    points = torch.tensor([[1.0, 1.0], [7.0, 7.0]])
    picture = draw_matches(image, image, Matches(points, points, torch.tensor([0.1, 0.2])))
    height, width, channels = picture.shape
    assert 560 <= width <= 1820 and 48 <= height <= 2041 and channels == 3


def test_images_may_be_paths_pil_images_and_arrays() -> None:
    path = Path(__file__).parents[2] / "examples/data/graffiti_a.jpg"
    expected = draw_matches(read_image(path), read_image(path), some_matches(5))
    with Image.open(path) as image:
        for given in (path, str(path), image, np.asarray(image)):
            np.testing.assert_array_equal(draw_matches(given, path, some_matches(5)), expected)


def test_a_mask_may_be_numpys_and_no_limit_draws_all() -> None:
    matches, flags = some_matches(80), np.arange(80) % 2 == 0
    picture = draw_matches(GREY, GREY, matches, inliers=flags, limit=None)
    as_tensor = draw_matches(GREY, GREY, matches, inliers=torch.from_numpy(flags), limit=80)
    np.testing.assert_array_equal(picture, as_tensor)


def test_a_point_far_outside_is_drawn_towards() -> None:
    left, right = torch.tensor([[-1e9, 100.0]]), torch.tensor([[1e9, 100.0]])
    matches = Matches(left, right, torch.tensor([0.9]))
    picture = draw_matches(GREY, GREY, matches, inliers=torch.tensor([True]))
    assert is_colour(picture[100, 300], red=False)


def test_drawing_changes_neither_image_nor_matches() -> None:
    image, matches = GREY.clone(), some_matches(80)
    before = matches.points_a.clone()
    draw_matches(image, image, matches)
    draw_similarity(image, torch.rand(4, 6))
    assert torch.equal(image, GREY) and torch.equal(matches.points_a, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": 0}, "limit"),
        ({"inliers": torch.ones(4, dtype=torch.bool)}, "inliers"),
        ({"inliers": torch.ones(5)}, "inliers"),
        ({"image_a": torch.zeros(2, 3, 20, 20)}, "image"),
        ({"limit": 2.5}, "limit"),
        ({"matches": (torch.zeros(5, 2), torch.zeros(5, 2))}, "matches must be Matches, got tuple"),
        ({"matches": Matches(*[torch.zeros(1, 5, n) for n in (2, 2)], torch.zeros(1, 5))}, "pair"),
        ({"matches": Matches(*[torch.full((5, 2), torch.nan)] * 2, torch.zeros(5))}, "points_a"),
        ({"matches": Matches(*[torch.zeros(5, 2)] * 2, -torch.full((5,), torch.inf))}, "scores"),
        ({"image_b": torch.zeros(3, 20, 20, dtype=torch.uint8)}, "uint8"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, Any], message: str) -> None:
    arguments = {"image_a": GREY, "image_b": GREY, "matches": some_matches(5), **change}
    with pytest.raises(InvalidArgumentError, match=message):
        draw_matches(**arguments)
