"""Alignment of matches by pixels, against motions that are known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import kornia_ditf as kd
from kornia_ditf.errors import InvalidArgumentError

DATA = Path(__file__).parents[2] / "examples/data"


@pytest.fixture(scope="module")
def wall() -> Tensor:
    return kd.read_image(DATA / "graffiti_a.jpg")


def moved(image: Tensor, matrix: np.ndarray[Any, Any], size: tuple[int, int]) -> Tensor:
    """Show an image as a homography moves it."""
    pixels = image[0].permute(1, 2, 0).numpy()
    shown = cv2.warpPerspective(pixels, matrix, size, flags=cv2.INTER_CUBIC)
    return torch.from_numpy(shown).permute(2, 0, 1)[None].clamp(0, 1)


def rough(matrix: np.ndarray[Any, Any], error: float, step: int = 32) -> tuple[kd.Matches, Tensor]:
    """Matches of a grid with an error of some pixels, and where they belong."""
    y, x = torch.meshgrid(torch.arange(60, 460, step), torch.arange(60, 580, step), indexing="ij")
    points = torch.stack([x, y], -1).reshape(-1, 2).float()
    there = cv2.perspectiveTransform(points.numpy()[None].astype(np.float64), matrix)[0]
    truth = torch.from_numpy(there).float()
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    return kd.Matches(points, truth + error * noise, torch.ones(len(points))), truth


ENDLESS = kd.Matches(torch.ones(1, 2), torch.full((1, 2), torch.inf), torch.ones(1))
TURN = np.array([[0.92, -0.31, 150.0], [0.27, 0.95, -40.0], [1e-4, -5e-5, 1.0]])


@pytest.mark.parametrize("light", ["the same", "darker and steeper"])
def test_points_move_to_a_fraction_of_a_pixel(wall: Tensor, light: str) -> None:
    other = moved(wall, TURN, (640, 512))
    if light != "the same":
        other = (0.6 * other**1.6 + 0.05).clamp(0, 1)
    matches, truth = rough(TURN, error=3.0)
    aligned, flags = kd.align_matches(wall, other, matches, torch.from_numpy(TURN))
    shown = ((truth > 20) & (truth < torch.tensor([620.0, 492.0]))).all(1)
    assert flags[shown].float().mean() > 0.8
    errors = (aligned.points_b - truth).norm(dim=1)[flags & shown]
    assert errors.median() < 0.1 and errors.quantile(0.95) < 0.5
    assert torch.equal(aligned.points_a, matches.points_a)
    assert torch.equal(aligned.points_b[~flags], matches.points_b[~flags])


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_images_of_other_resolutions_are_aligned(wall: Tensor, scale: float) -> None:
    size = (round(640 * scale), round(512 * scale))
    other = torch.nn.functional.interpolate(wall, size[::-1], mode="bicubic", antialias=True).clamp(
        0, 1
    )
    matrix = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
    matches, truth = rough(matrix, error=2.0 * scale)
    aligned, flags = kd.align_matches(wall, other, matches, torch.from_numpy(matrix))
    errors = (aligned.points_b - truth).norm(dim=1)[flags]
    assert flags.float().mean() > 0.8 and errors.median() < 0.1 * max(1.0, scale)


def test_a_large_photograph_is_aligned_in_its_own_pixels(wall: Tensor) -> None:
    large = torch.nn.functional.interpolate(wall, (2560, 3200), mode="bicubic").clamp(0, 1)
    matches, _ = rough(np.eye(3), error=0.0)
    points = matches.points_a * 5
    start = kd.Matches(points, points + 9, matches.scores)
    aligned, flags = kd.align_matches(large, large, start, reach=20)
    assert flags.float().mean() > 0.9
    assert (aligned.points_b - points).norm(dim=1)[flags].median() < 0.1


def test_points_without_texture_or_partner_stay_where_they_are(wall: Tensor) -> None:
    matches, _ = rough(np.eye(3), error=2.0)
    blank = torch.full_like(wall, 0.5)
    noise = torch.rand(wall.shape, generator=torch.Generator().manual_seed(1))
    for other in (blank, noise):
        aligned, flags = kd.align_matches(wall, other, matches)
        assert flags.float().mean() < 0.05
        assert torch.equal(aligned.points_b[~flags], matches.points_b[~flags])
    _, flags = kd.align_matches(blank, blank, matches)
    assert not flags.any()


def test_no_point_moves_farther_than_its_reach(wall: Tensor) -> None:
    matches, _ = rough(np.eye(3), error=6.0)
    aligned, flags = kd.align_matches(wall, wall, matches, reach=4.0)
    assert (aligned.points_b - matches.points_b).norm(dim=1).max() <= 4.001
    assert 0 < flags.float().mean() < 1


def test_no_match_is_nothing_to_align(wall: Tensor) -> None:
    none = kd.Matches(torch.empty(0, 2), torch.empty(0, 2), torch.empty(0))
    aligned, flags = kd.align_matches(wall, wall, none)
    assert len(aligned) == 0 and flags.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reach": 0}, "reach"),
        ({"window": 2}, "window"),
        ({"homography": torch.zeros(3, 3)}, "homography"),
        ({"homography": torch.full((3, 3), torch.nan)}, "homography"),
        ({"homography": torch.eye(2)}, "homography"),
        ({"image_b": torch.rand(2, 3, 32, 32)}, "one pair"),
        (
            {"matches": kd.Matches(torch.ones(1, 2), torch.full((1, 2), torch.inf), torch.ones(1))},
            "points_b",
        ),
    ],
)
def test_wrong_arguments_are_named(wall: Tensor, changes: dict[str, Any], words: str) -> None:
    given = {"image_a": wall, "image_b": wall, "matches": rough(np.eye(3), 1.0)[0]} | changes
    with pytest.raises(InvalidArgumentError, match=words):
        kd.align_matches(**given)


def test_searched_matches_are_exact_and_so_is_their_homography(wall: Tensor) -> None:
    other = moved(wall, TURN, (640, 512))
    found = kd.match_images(wall, other, kd.create_descriptor("nano", long_side=256), search="none")
    truth = cv2.perspectiveTransform(found.matches.points_a.double().numpy()[None], TURN)[0]
    errors = np.linalg.norm(truth - found.matches.points_b.numpy(), axis=1)
    assert np.median(errors[errors < 8]) < 0.2
    corners = np.array([[[0.0, 0], [639, 0], [0, 511], [639, 511]]])
    assert found.verification.matrix is not None
    shown = cv2.perspectiveTransform(corners, found.verification.matrix.numpy())
    assert np.abs(shown - cv2.perspectiveTransform(corners, TURN)).max() < 0.5
    loose = kd.match_images(
        wall, other, kd.create_descriptor("nano", long_side=256), search="none", refined=False
    )
    assert np.array_equal(loose.matches.points_a, found.matches.points_a)


@pytest.mark.parametrize(("turn", "scale"), [(0, 1.0), (20, 0.8), (90, 1.0)])
def test_matches_are_about_as_exact_as_those_of_sift(
    wall: Tensor, turn: float, scale: float
) -> None:
    cos, sin = scale * np.cos(np.deg2rad(turn)), scale * np.sin(np.deg2rad(turn))
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    matrix[:2, 2] = [320.3, 256.6] - matrix[:2, :2] @ [320, 256]
    other = moved(wall, matrix, (640, 512))
    found = kd.match_images(wall, other, kd.create_descriptor("nano", long_side=256)).matches
    grey = [(each[0].mean(0).clamp(0, 1) * 255).round().byte().numpy() for each in (wall, other)]
    (keys_a, a), (keys_b, b) = (cv2.SIFT.create().detectAndCompute(each, None) for each in grey)
    pairs = [m for m, n in cv2.BFMatcher().knnMatch(a, b, k=2) if m.distance < 0.75 * n.distance]
    theirs = np.array([(keys_a[m.queryIdx].pt, keys_b[m.trainIdx].pt) for m in pairs])
    medians = []
    for at, to in ((found.points_a.numpy(), found.points_b.numpy()), theirs.swapaxes(0, 1)):
        truth = cv2.perspectiveTransform(at[None].astype(np.float64), matrix)[0]
        error = np.linalg.norm(truth - to, axis=1)
        medians.append(np.median(error[error < 8]))
    assert medians[0] < 1.3 * medians[1]


def test_points_beside_an_edge_of_depth_do_not_jump_to_the_other_side(wall: Tensor) -> None:
    other = torch.roll(wall, 6, 3)  # the left half moves by 6 pixels, the right half by none
    other[..., 320:] = wall[..., 320:]
    y = torch.arange(40.0, 480, 4)
    points = torch.stack([torch.full_like(y, 308.0), y], 1)
    truth = points + torch.tensor([6.0, 0])
    start = kd.Matches(points, truth + torch.tensor([-3.0, 0]), torch.ones(len(points)))
    aligned, flags = kd.align_matches(wall, other, start, reach=12, window=31)
    errors = (aligned.points_b - truth).norm(dim=1)
    # Without the smaller square, 12 % jump.
    assert flags.float().mean() > 0.4 and (errors > 3.5).float().mean() < 0.04
