"""The training of nano: its draws, its steps, what it measures."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).parents[1] / "examples" / "train_nano"
sys.path.insert(0, str(FOLDER))

import average  # noqa: E402
import curves  # noqa: E402
import evaluate  # noqa: E402
import hard  # noqa: E402
import loss  # noqa: E402
import matchers  # noqa: E402
import measure  # noqa: E402
import network  # noqa: E402
import pairs  # noqa: E402
import photographs  # noqa: E402
import posed  # noqa: E402
import sweep  # noqa: E402
import train  # noqa: E402
import views  # noqa: E402

Array = views.Array


def coordinates(seed: int, size: tuple[int, int] = (240, 320)) -> Array:
    """A photograph whose red and green say where a pixel is, and whose blue says in which one."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    blue = np.full(size, 60 * seed)
    return np.stack([x * 255 / size[1], y * 255 / size[0], blue], -1).astype(np.uint8)


def noise_photograph(seed: int, size: tuple[int, int] = (180, 200)) -> Array:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    return cv2.GaussianBlur(values, (0, 0), 2) * 2


@pytest.mark.parametrize("seed", range(12))
def test_a_point_shows_the_same_place_of_the_same_photograph_in_both_views(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "relight", lambda rng, view, strength: view)
    monkeypatch.setattr(views, "GRAY_SHARE", 0)
    sources = [views.pyramid(coordinates(index)) for index in range(4)]
    pair = views.draw_pair(np.random.default_rng(seed), sources, (96, 128), 4)
    seen = pair.visible
    assert seen.sum() > 20
    # Outlines are cut to the pixel, so a few points beside one fall on its other side.
    colour_a, colour_b = (
        views.at_pixels(view, points[seen]).astype(float)
        for view, points in ((pair.view_a, pair.points_a), (pair.view_b, pair.points_b))
    )
    apart = np.abs(colour_a - colour_b).max(1)
    assert np.quantile(apart, 0.85) < 6


def test_the_same_seed_draws_the_same_pair_and_another_seed_another() -> None:
    sources = [views.pyramid(noise_photograph(index)) for index in range(3)]
    first, again, other = (
        views.draw_pair(np.random.default_rng(seed), sources, (64, 64), 4) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.view_b, again.view_b)
    np.testing.assert_array_equal(first.points_b, again.points_b)
    assert not np.array_equal(first.view_b, other.view_b)


def test_scales_differ_by_the_zooms_and_stay_within_the_photograph() -> None:
    rng = np.random.default_rng(0)
    for coarsest in (0.3, 0.5, 1.2, 4.0):
        drawn = np.array([views.draw_scales(rng, coarsest) for _ in range(2000)])
        limit = max(coarsest, views.FINEST)
        assert (drawn > views.FINEST - 1e-9).all() and (drawn < limit + 1e-9).all()
        zooms = np.abs(np.log(drawn[:, 0] / drawn[:, 1]))
        largest = min(np.exp(views.ZOOMS).max(), limit / views.FINEST)
        assert np.exp(zooms.max()) == pytest.approx(largest, rel=0.05)
    same = views.draw_scales(rng, 4.0, same=True)
    assert same[0] == pytest.approx(same[1])


@pytest.mark.parametrize(("turn", "scale"), [(0, 1), (90, 1), (-30, 1), (0, 0.5), (0, 2)])
def test_a_turned_or_scaled_photograph_shows_its_points_where_the_truth_says(
    turn: float, scale: float
) -> None:
    photograph = coordinates(0, (360, 480))
    pair = curves.moved(photograph, turn, scale)
    inside = views.is_within(pair.truth, 20, pair.image_b.shape[:2])
    colour_a = views.at_pixels(pair.image_a, pairs.queries_of(pair.image_a)[inside]).astype(float)
    colour_b = views.at_pixels(pair.image_b, pair.truth[inside]).astype(float)
    relit = 255 * (colour_a / 255) ** 1.4 * [1.0, 0.92, 0.85]
    assert inside.sum() > 100
    assert np.abs(relit - colour_b)[:, :2].mean() < 8


def test_a_pair_knows_how_much_larger_its_second_view_shows_the_scene() -> None:
    centres = views.token_centres((32, 32), 4)
    moved = views.project(np.diag([2.5, 2.5, 1.0]), centres)
    view = np.zeros((32, 32, 3))
    assert views.Pair(view, view, centres, moved, np.ones(64, bool)).zoom() == pytest.approx(2.5)


def test_detected_keypoints_find_a_turned_photograph_and_nothing_in_nothing() -> None:
    pair = curves.moved(noise_photograph(3, (300, 400)), 45, 1.0)
    sift = matchers.Matcher(matchers.match_detected(cv2.SIFT.create(), 0.75), 3.0)
    corners, apart = curves.homography_errors(pair, sift)
    assert corners < 5 and apart < 1
    flat = np.zeros((64, 64, 3), np.uint8)
    assert len(sift.match(flat, flat)[0]) == 0
    lost = curves.homography_errors(
        pair, matchers.Matcher(lambda a, b: sift.match(flat, flat), 3.0)
    )
    assert lost[0] == measure.LOST_PX and np.isnan(lost[1])


def test_a_bend_is_undone_where_points_are_sought() -> None:
    bend = views.draw_bend(np.random.default_rng(0), (96, 128), sideways=False)
    points = np.random.default_rng(1).uniform(20, 70, (50, 2))
    found = views.unbend(bend, points)
    x, y = found.astype(np.float32).T[:, :, None]
    here = cv2.remap(bend, x, y, cv2.INTER_LINEAR).reshape(-1, 2)
    np.testing.assert_allclose(found + here, points, atol=0.05)


def test_correspondence_costs_nothing_when_tokens_agree_and_much_when_they_do_not() -> None:
    centres = views.token_centres((32, 32), 4)
    same = views.Pair(
        np.zeros((32, 32, 3)), np.zeros((32, 32, 3)), centres, centres, np.ones(64, bool)
    )
    tokens = torch.randn(1, 256, 8, 8, generator=torch.Generator().manual_seed(0))
    picks = [np.arange(64)]
    right = loss.correspondence_loss(tokens, tokens, [same], picks, (32, 32))
    wrong = loss.correspondence_loss(tokens, tokens.flip(3), [same], picks, (32, 32))
    assert right.accuracy == 1 and right.loss < 0.01
    assert wrong.accuracy < 0.1 and wrong.loss > 5


def test_a_licence_is_that_of_the_last_pattern_that_matches(tmp_path: Path) -> None:
    path = tmp_path / "copyright"
    path.write_text(
        "Files: *\nCopyright: All <a@b.c>\nLicense: GPL-2+\n\n"
        "Files: art/*.jpg\nCopyright: Ann\nLicense: CC-BY-SA-4.0\n some text\n"
    )
    terms = photographs.read_copyright(path)
    assert photographs.terms_of("art/x.webp", terms).license == "CC-BY-SA-4.0"
    assert photographs.terms_of("code/x.jpg", terms) == photographs.Terms("*", "GPL-2+", "All")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder such as `photographs.py` makes, of three photographs."""
    (tmp_path / "photographs").mkdir()
    with (tmp_path / "photographs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file"])
        for index in range(3):
            cv2.imwrite(str(tmp_path / f"photographs/{index}.png"), noise_photograph(index))
            writer.writerow([f"{index}.png"])
    return tmp_path


@pytest.fixture
def training(data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Trains a tiny network on tiny views; gives the checkpoint."""
    for name, value in {"WIDTH": 32, "HEADS": 2, "BLOCKS": 3}.items():
        monkeypatch.setattr(network, name, value)
    monkeypatch.setattr(train, "BLOCK", 1)
    monkeypatch.setattr(train, "SHAPES", (((32, 32), 2), ((32, 48), 2)))
    monkeypatch.setattr(train, "FLOW_PIXELS", 32 * 32)
    monkeypatch.setattr(train, "PATTERNED", 2)
    threads = torch.get_num_threads()

    def run(out: str, **changes: Any) -> dict[str, Any]:
        options = {
            "data": data, "out": data / out, "steps": 4, "rate": 1e-3, "seed": 0,
            "threads": threads, "save_every": 1e9, "correspondence_weight": 1.0,
            "flow_weight": 3.0, "flow_images": 1, "keep_descriptor": False, "start": None,
        }  # fmt: skip
        train.train(argparse.Namespace(**{**options, **changes}))
        return dict(load_file(data / out / "checkpoint.safetensors"))

    return run


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    training: Callable[..., dict[str, Any]], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = training("whole")
    draw = train.losses

    def stopped(*arguments: Any) -> Any:
        if arguments[2] == 2:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(train, "losses", stopped)
    with pytest.raises(KeyboardInterrupt):
        training("halves", save_every=0)
    monkeypatch.setattr(train, "losses", draw)
    resumed = training("halves")
    assert undisturbed.keys() == resumed.keys()
    log = [(data / run / "log.csv").read_text() for run in ("whole", "halves")]
    assert log[0].splitlines()[0] == log[1].splitlines()[0] == ",".join(train.COLUMNS)
    assert cv2.imread(str(data / "halves/losses.png")) is not None
    for name, value in undisturbed.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


def test_training_behind_the_descriptor_leaves_it_as_it_was(
    training: Callable[..., dict[str, Any]], data: Path
) -> None:
    training("first", steps=2)
    weights = data / "first/nano_weights"
    training(
        "second", steps=3, rate=1e-2, start=weights, keep_descriptor=True, correspondence_weight=0
    )
    before, after = network.read(weights), network.read(data / "second/nano_weights")
    image, level = torch.rand(1, 3, 32, 32), torch.tensor([0.05])
    with torch.no_grad():
        described = [network.describe(net, image, level, train.BLOCK) for net in (before, after)]
        denoised = [
            network.flow_losses(net, image, torch.ones_like(image), level)
            for net in (before, after)
        ]
    torch.testing.assert_close(described[0], described[1], rtol=0, atol=0)
    assert not torch.equal(denoised[0], denoised[1])


def test_an_average_of_weights_lies_between_them(tmp_path: Path) -> None:
    first, second = network.build(), network.build()
    expected = 0.75 * first.patch_embed.proj.weight + 0.25 * second.patch_embed.proj.weight
    network.write(average.between(first, second, 0.25), tmp_path)
    found = network.read(tmp_path).patch_embed.proj.weight
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_the_untrained_network_predicts_nothing_so_its_loss_is_the_velocitys_own_power() -> None:
    image, noise = torch.rand(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = network.flow_losses(network.build(), image, noise, torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(found, (noise - image).square().mean((1, 2, 3)))


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


def test_the_model_card_tells_of_the_preset_and_of_every_photograph() -> None:
    from kornia_ditf.backbones.nano import NANO, WEIGHTS

    card = (WEIGHTS / "MODEL_CARD.md").read_text("utf-8")
    assert f"longest side {NANO.long_side}, block {NANO.block}, timestep {NANO.timestep:g}" in card
    with (WEIGHTS / "photographs.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert f"\n{len(listed)} photographs" in card
    for package in {entry["package"] for entry in listed}:
        count = sum(entry["package"] == package for entry in listed)
        assert any(package in line and f"| {count} |" in line for line in card.splitlines())
    assert all(entry["license"].lower().startswith(("cc", "public")) for entry in listed)


def test_the_weights_are_small_and_in_half_precision() -> None:
    from kornia_ditf.backbones.nano import WEIGHTS

    path = WEIGHTS / "transformer" / "diffusion_pytorch_model.safetensors"
    assert path.stat().st_size < 25_000_000
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
