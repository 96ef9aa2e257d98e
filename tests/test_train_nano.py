"""The training of nano: its draws, its steps, its sweep."""

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
import loss  # noqa: E402
import matchers  # noqa: E402
import measure  # noqa: E402
import network  # noqa: E402
import pairs  # noqa: E402
import photographs  # noqa: E402
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
