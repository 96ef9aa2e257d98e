"""What the training of nano measures: its pairs, its tables, the intervals."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.test_train_nano import FOLDER, Array, noise_photograph

sys.path.insert(0, str(FOLDER))

import curves
import evaluate
import hard
import matchers
import measure
import network
import pairs
import posed
import sweep
import views


def moved_pair(shift: tuple[int, int] = (16, 8)) -> pairs.TestPair:
    """A noisy wall and itself moved by whole queries."""
    wall = noise_photograph(0, (160, 192))
    homography = views.translation(*shift)
    moved = cv2.warpPerspective(wall, homography, (192, 160))
    return pairs.TestPair(
        "wall", wall, moved, views.project(homography, pairs.queries_of(wall)), homography
    )


def patch(image: Array, points: Array) -> torch.Tensor:
    from describers import rgb_patch

    return rgb_patch(image, points)


def test_a_moved_wall_is_found_again_with_its_homography() -> None:
    outcome = measure.match_pair(moved_pair(), patch)
    assert outcome.share(4, False) > 0.85
    assert outcome.share(4, True) >= outcome.share(4, False)
    assert outcome.corners_px is not None
    error, low, high = outcome.corners_px
    assert error < 0.5 and low <= high < 2


def test_descriptors_that_say_nothing_find_nothing() -> None:
    def alike(image: Array, points: Array) -> torch.Tensor:
        return torch.ones(len(points), 3)

    outcome = measure.match_pair(moved_pair(), alike)
    assert outcome.share(16, False) < 0.1


def test_a_table_of_pairs_shows_every_pair_and_the_corner_error_of_graf() -> None:
    outcome = measure.match_pair(moved_pair(), patch)
    shown = evaluate.pair_table({"patch": [outcome]}, ["wall"], 16)
    head, _, row = shown.splitlines()
    assert head == "| PCK@16 of | wall | graf corners, px |"
    assert row.count("to") == 2 and row.startswith("| patch | ")
    assert evaluate.mean_table({"patch": [outcome]}).splitlines()[2].count("to") == 6


def look_at(rng_seed: int = 0) -> tuple[list[posed.Plane], Array, Array]:
    """A room, a camera for small images, and the pose of a second camera in it."""
    rng = np.random.default_rng(rng_seed)
    planes = posed.room(rng, [noise_photograph(seed) for seed in range(6)])
    pose = posed.look(rng, posed.MOTIONS["rooms, far"], np.array([0, 0.2, 6]))
    return planes, np.array([[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]]), pose


def true_matches(
    planes: list[posed.Plane], camera: Array, pose: Array
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Points of the first view, where the pose puts them in the second, and what both see there."""
    points = np.random.default_rng(1).uniform(0, [127, 95], (400, 2))
    depth, number, place = posed.trace(planes, camera, np.eye(4), points)
    there = np.c_[points, np.ones(400)] @ np.linalg.inv(camera).T * depth[:, None]
    seen = (there @ pose[:3, :3].T + pose[:3, 3]) @ camera.T
    moved = seen[:, :2] / seen[:, 2:]
    _, again, found = posed.trace(planes, camera, pose, moved)
    inside = (seen[:, 2] > 0) & (moved >= 0).all(1) & (moved <= [127, 95]).all(1)
    shared = inside & (again == number)
    return points[shared], moved[shared], (place[shared], found[shared])


def test_a_rendered_pair_shows_the_same_place_where_its_pose_says() -> None:
    planes, camera, pose = look_at()
    a, b, (here, there) = true_matches(planes, camera, pose)
    assert len(a) > 150
    np.testing.assert_allclose(here, there, atol=1e-6)
    images = [posed.render(planes, camera, at, (96, 128)) for at in (np.eye(4), pose)]
    colours = [views.at_pixels(x, p).astype(float) for x, p in zip(images, (a, b), strict=True)]
    apart = np.abs(colours[0] - colours[1]).max(1)
    strange = np.abs(colours[0] - colours[1][::-1]).max(1)
    assert np.median(apart) < 0.4 * np.median(strange)


def test_true_matches_give_the_pose_and_none_give_nothing() -> None:
    planes, camera, pose = look_at()
    a, b, _ = true_matches(planes, camera, pose)
    blank = np.zeros((96, 128, 3), np.uint8)
    pair = posed.posed("rooms", "room-0", (blank, blank), (camera, camera), pose)
    compared = {
        "truth": matchers.Matcher(lambda _a, _b: (a, b), 1.0),
        "nothing": matchers.Matcher(lambda _a, _b: (a[:0], b[:0]), 1.0),
    }
    shown = posed.pose_tables([pair], compared, lambda name, total: lambda: None)["pose"]
    head, _, truth, nothing = shown.splitlines()
    assert "rooms (1)" in head
    assert min(int(x) for x in truth.split("|")[2].split("/")) >= 98
    assert nothing.split("|")[2].strip() == "0 / 0 / 0"


def hard_pair() -> hard.TestPair:
    image = noise_photograph(5, (240, 320))
    homography = np.array([[0.95, -0.1, 20], [0.08, 1.02, -6], [1e-4, 5e-5, 1]])
    other = cv2.warpPerspective(image, homography, (320, 240))
    outline = np.array([[30, 30], [290, 30], [290, 210], [30, 210]], float)
    return hard.flat("noise", image, other, homography, outline)


@pytest.mark.parametrize("edges", [False, True])
def test_points_by_eye_are_refined_by_the_images_themselves(edges: bool) -> None:
    pair = hard_pair()
    start = views.translation(1.5, -2) @ pair.homography
    found = hard.align(pair.image_a, pair.image_b, start, pair.corners, edges)
    apart = views.project(found, pair.corners) - views.project(pair.homography, pair.corners)
    assert np.linalg.norm(apart, axis=1).max() < 0.5


def test_a_turned_pair_keeps_its_truth_and_who_finds_it_solves_it() -> None:
    pair = hard.turned(hard_pair(), 90, 0.5)
    assert (
        pair.image_b.shape[:2] == (160, 120)
        and pair.name == "noise, camera turned by 90, 0.5 times"
    )
    known = np.isfinite(pair.truth).all(1)
    a, b = pairs.queries_of(pair.image_a)[known], pair.truth[known]
    compared = {
        "truth": matchers.Matcher(lambda _a, _b: (a, b), 3.0),
        "off": matchers.Matcher(lambda _a, _b: (a, b + 30), 3.0),
        "nothing": matchers.Matcher(lambda _a, _b: (a[:0], b[:0]), 3.0),
    }
    tables = hard.hard_tables([pair], compared, lambda name, total: lambda: None)
    solved = [line.split("|")[2].strip() for line in tables["hard-solved"].splitlines()[2:]]
    assert solved == ["1", "0", "0"]
    assert "**0.0**" in tables["hard"]


def test_precision_is_compared_where_both_find_the_homography() -> None:
    errors = {
        "ours": np.array([[1.0, 0.2], [3.0, 0.4], [900.0, np.nan]]),
        "theirs": np.array([[2.0, 0.4], [2.0, 0.8], [1.0, 0.1]]),
    }
    shown = curves.precision_table(errors, "ours", "theirs").splitlines()
    assert shown[0].startswith("| 2 of 3 pairs | ours | theirs | ratio")
    assert shown[2].endswith("| 0.30 | 0.60 | 0.50 |")


def test_pages_are_filled_with_the_tables_they_name_and_name_every_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- table x -->\nold\n<!-- end -->\nb\n<!-- table y -->\nkept\n<!-- end -->\n"
    )
    evaluate.fill(page, {"x": "| new |\n"})
    kept = "<!-- table y -->\nkept\n<!-- end -->\n"
    assert page.read_text() == f"a\n<!-- table x -->\n| new |\n<!-- end -->\nb\n{kept}"
    docs = FOLDER.parents[1] / "docs"
    named = [
        found["name"]
        for each in evaluate.PAGES
        for found in evaluate.TABLE.finditer((docs / each).read_text("utf-8"))
    ]
    assert set(named) == {name for names in evaluate.PARTS.values() for name in names}


def test_intervals_hold_the_mean_and_a_lead_over_oneself_is_none() -> None:
    outcome = measure.match_pair(moved_pair(), patch)
    wrong = measure.Outcome(outcome.distance_px + 7, outcome.mutual, outcome.square)
    mean, low, high = measure.mean_share([outcome, wrong], 4)
    assert low <= mean <= high and high - low < 20
    assert measure.mean_share([outcome, wrong], 4, against=[outcome, wrong]) == (0, 0, 0)
    ahead = measure.mean_share([outcome], 4, against=[wrong])
    assert ahead[1] > 50


def test_a_square_is_drawn_as_often_as_there_are_squares() -> None:
    outcome = measure.Outcome(np.zeros(6), np.ones(6, bool), np.array([0, 0, 3, 3, 3, 9]))
    weights = outcome.draw_weights(np.random.default_rng(0), 200)
    assert (weights.sum(1) == 3).all()
    assert set(np.flatnonzero(weights.sum(0))) == {0, 3, 9}


def test_resizing_keeps_pixel_centres() -> None:
    matrix = pairs.to_size((800, 640), (400, 320))
    np.testing.assert_allclose(views.project(matrix, np.array([[0.5, 0.5]])), [[0, 0]])
    np.testing.assert_allclose(views.project(matrix, np.array([[799, 639]])), [[399.25, 319.25]])


def test_disparity_moves_a_query_left_and_zero_is_unknown() -> None:
    image = np.zeros((8, 16, 3))
    disparity = np.full((16, 32), 6.0)
    disparity[:, 24:] = 0
    truth = pairs.by_disparity(pairs.queries_of(image), disparity, image)
    np.testing.assert_allclose(truth[0], [0.5, 3.5])
    assert np.isnan(truth[1]).all()


@pytest.mark.slow
def test_a_sweep_measures_every_block_and_noise_level_with_each_treatment() -> None:
    from kornia_ditf.backbones.nano import WEIGHTS

    found = sweep.sweep(WEIGHTS, [moved_pair()], (4, 5), (0, 400))
    assert len(found.outcomes) == 2 * 2 * len(sweep.TREATMENTS)
    assert found.best(8)[1] == 0
    assert found.pck("adaln", 5, 0, 8) > found.pck("adaln", 5, 400, 8)
    assert found.channels[5, 0].ratio.shape == (network.WIDTH,)
