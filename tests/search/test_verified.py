from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_ditf import create_descriptor, match, read_image, refine, verify
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.fusion import FusedDescriptor
from kornia_ditf.matching.views import View
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.search.verified import Attempt, match_images
from kornia_ditf.types import DescriptorMap, Frame

DATA = Path(__file__).parents[2] / "examples" / "data"


@pytest.fixture(scope="module")
def nano() -> DenseDescriptor:
    return create_descriptor("nano", long_side=168)


@pytest.fixture(scope="module")
def wall() -> Tensor:
    return read_image(DATA / "graffiti_a.jpg")


def warp(image: Tensor, turn: float, scale: float, side: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Show the middle of an image turned clockwise and enlarged, and how its pixels map there."""
    height, width = image.shape[2:]
    angle = math.radians(turn)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    matrix[:2, 2] = side / 2 - matrix[:2, :2] @ [width / 2, height / 2]
    pixels = image[0].permute(1, 2, 0).numpy()
    if scale < 1:
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.4 / scale)
    warped = cv2.warpPerspective(pixels, matrix, (side, side))
    return torch.from_numpy(warped).permute(2, 0, 1)[None].clamp(0, 1), matrix


def distances(points_a: Tensor, points_b: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    truth = cv2.perspectiveTransform(points_a[None].double().numpy(), matrix)[0]
    return (torch.from_numpy(truth) - points_b).norm(dim=1)


def test_a_pair_that_agrees_plainly_is_compared_once(nano: DenseDescriptor, wall: Tensor) -> None:
    shifted, _ = warp(wall, 10, 0.9, 512)
    found = match_images(wall, shifted, nano)
    a, b = nano(wall), nano(shifted)
    plain = refine(match(a, b), a, b)
    assert len(found.attempts) == 1 and found.chosen == 0
    checked = verify(plain, threshold=found.threshold)
    assert found.attempts[0].inliers == len(checked.inlier_matches)
    assert torch.equal(found.matches.points_a, plain.points_a)
    # Two passes of alignment move a point by at most one token each.
    assert (found.matches.points_b - plain.points_b).norm(dim=1).max() <= 2 * found.threshold
    coarse = match_images(wall, shifted, nano, search="none", refined=False, maps=(a, b))
    assert torch.equal(coarse.matches.points_b, match(a, b).points_b)


@pytest.mark.parametrize(
    ("turn", "scale", "search"),
    [
        (90, 1.0, "turns"),
        (0, 3.0, "scales"),
        (92, 2.9, "both"),
        (-90, 0.4, "both"),
        (135, 1.0, [(1.0, 135.0)]),
    ],
)
def test_turns_and_scales_are_found_and_points_are_the_images_own(
    nano: DenseDescriptor, wall: Tensor, turn: float, scale: float, search: str
) -> None:
    other, matrix = warp(wall, turn, scale, 512 if scale >= 0.8 else 320)
    plain = match_images(wall, other, nano, search="none")
    found = match_images(wall, other, nano, search=search)  # type: ignore[arg-type]
    chosen = found.attempts[found.chosen]
    assert chosen.share > 0.3 > plain.attempts[0].share
    inliers = found.verification.inlier_matches
    assert distances(inliers.points_a, inliers.points_b, matrix).median() < 5 * max(1, scale)
    assert abs((chosen.turn - turn + 180) % 360 - 180) < 25
    assert found.attempts[0] == plain.attempts[0]


def test_a_search_stops_with_the_first_variant_that_agrees(
    nano: DenseDescriptor, wall: Tensor
) -> None:
    turned, _ = warp(wall, 180, 1.0, 512)
    found = match_images(wall, turned, nano)
    # Plain, two quarter turns at half the size, and the second of them at full size.
    assert [attempt.turn for attempt in found.attempts[:3]] == [0, 90, 180]
    assert len(found.attempts) == 4 and found.chosen == 3
    assert {attempt.side_b for attempt in found.attempts[1:3]} == {84}


def test_few_matches_that_agree_are_compared_again_where_they_are(
    nano: DenseDescriptor, wall: Tensor
) -> None:
    turned, matrix = warp(wall, 30, 0.6, 512)
    large = nano.with_long_side(240)
    a, b = large(wall), large(turned)
    # Five sixths of B's tokens change places, so that few of the matches agree.
    generator = torch.Generator().manual_seed(0)
    order = torch.arange(b.grid[0] * b.grid[1])
    wrong = torch.randperm(len(order), generator=generator)[: len(order) * 5 // 6]
    order[wrong] = wrong[torch.randperm(len(wrong), generator=generator)]
    mixed = DescriptorMap(b.data.flatten(2)[..., order].view_as(b.data), b.frame)
    found = match_images(wall, turned, large, maps=(a, mixed))
    plain, again = found.attempts
    assert found.chosen == 1 and again.share > 2 * plain.share
    assert abs(again.turn - 30) < 10
    inliers = found.verification.inlier_matches
    assert distances(inliers.points_a, inliers.points_b, matrix).median() < 0.5


def test_a_homography_of_a_tenth_of_the_matches_is_found(nano: DenseDescriptor) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(64, 1024, generator=generator)
    order, wrong = torch.arange(1024), torch.randperm(1024, generator=generator)[:920]
    order[wrong] = wrong[torch.randperm(920, generator=generator)]
    size = Frame((256, 256), (256, 256))
    maps = [DescriptorMap(each.view(1, 64, 32, 32), size) for each in (tokens, tokens[:, order])]
    image = torch.rand(3, 256, 256, generator=generator)
    found = match_images(image, image, nano, search="none", maps=maps, refined=False)
    right = (found.matches.points_a == found.matches.points_b).all(1)
    assert 100 <= int(right.sum()) < 0.11 * len(right)
    assert bool(found.verification.inliers[right].all())


def test_what_is_shown_keeps_its_size_between_right_angles(
    nano: DenseDescriptor, wall: Tensor
) -> None:
    found = match_images(wall, torch.rand(3, 64, 64), nano, search=[(1, 90), (1, 45)])
    assert [attempt.side_b for attempt in found.attempts[1:3]] == [84, 84]


def test_images_that_share_nothing_keep_their_plain_matches(nano: DenseDescriptor) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3, 96, 128, generator=generator)
    found = match_images(a, b, nano)
    assert found.chosen == 0 and len(found.attempts) == 18
    maps = nano(a), nano(b)
    assert torch.equal(found.matches.scores, match(*maps).scores)


def test_a_descriptor_that_keeps_the_size_is_searched_by_resizing_the_images(
    nano: DenseDescriptor, wall: Tensor
) -> None:
    class Plain(DenseDescriptor):
        width = nano.width  # type: ignore[assignment]

        def forward(self, image: ImageLike, prompts: object = None) -> DescriptorMap:
            pixels = as_image(image)
            size = (pixels.shape[2], pixels.shape[3])
            described = nano.with_long_side(max(size))(pixels)
            return DescriptorMap(described.data, Frame(size, described.frame.model_size))

    small = torch.nn.functional.interpolate(wall, (96, 120), mode="bilinear", antialias=True)
    turned = small.rot90(2, (2, 3))
    found = match_images(small, turned, Plain(), search=[(1, 180)])
    assert found.attempts[found.chosen].turn == 180
    assert [attempt.side_a for attempt in found.attempts] == [120, 60, 120]
    matrix = np.array([[-1.0, 0, 119], [0, -1, 95], [0, 0, 1]])
    assert distances(found.matches.points_a, found.matches.points_b, matrix).median() < 0.5


def test_another_size_shares_the_weights(nano: DenseDescriptor, wall: Tensor) -> None:
    small = nano.with_long_side(84)
    assert nano.long_side == 168 and small.long_side == 84
    assert nano.with_long_side(168) is nano
    ours, theirs = nano.parameters(), small.parameters()
    assert all(one is other for one, other in zip(ours, theirs, strict=True))
    expected = create_descriptor("nano", long_side=84)(wall)
    assert torch.equal(small(wall).data, expected.data)
    fused = FusedDescriptor([nano, small], weights=[1.0, 0.5]).with_long_side(84)
    assert [part.long_side for part in fused.parts] == [84, 42]
    assert fused.long_side == 84 and fused.weights == (1.0, 0.5)


@pytest.mark.parametrize("degrees", [0.0, 90.0, 180.0, 270.0, -90.0, 30.0, 250.0])
def test_points_of_a_view_are_those_of_the_image(degrees: float) -> None:
    # Every pixel tells its own place.
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    image = torch.stack([x, y, x + y])[None]
    view = View(image).crop((10, 5, 70, 50)).turn(degrees)
    inside = view.inside
    if inside is None:
        inside = torch.ones(view.size, dtype=torch.bool)
    rows, columns = inside.nonzero().unbind(1)
    points = view.to_image(torch.stack([columns, rows], 1).float())
    # Between right angles, pixels on the border are those nearest to it.
    atol = 2e-3 if degrees % 90 == 0 else 0.501
    torch.testing.assert_close(points, view.image[0, :2, rows, columns].T, rtol=0, atol=atol)
    assert 0.9 * 60 * 45 < len(points) < 1.1 * 60 * 45
    middle = view.cut(30 * 40)
    assert middle.size[0] * middle.size[1] == pytest.approx(30 * 40, rel=0.03)
    assert middle.inside is None or middle.inside.shape == middle.image.shape[2:]
    shown = middle.image[0, :2, 9, 14]
    torch.testing.assert_close(middle.to_image(torch.tensor([14.0, 9.0])), shown, rtol=0, atol=atol)
    small = View(image).shrink(40)
    torch.testing.assert_close(
        small.to_image(torch.tensor([[20.0, 10.0]])), small.image[0, :2, 10, 20][None]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": "rotation"}, "search must be one of none, scales, turns, both.*'rotation'"),
        ({"search": [(1, 2, 3)]}, r"search must hold pairs \(scale, turn\).*got \(1, 2, 3\)"),
        ({"search": [(100, 0)]}, r"the scale in \[0.1, 10\].*got \(100, 0\)"),
        ({"geometry": "essential"}, "geometry must be one of homography, fundamental"),
        ({"prompts": ["one"]}, "2 images have 1 prompts"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    nano: DenseDescriptor, options: dict[str, object], message: str
) -> None:
    image = torch.rand(3, 64, 64)
    with pytest.raises(InvalidArgumentError, match=message):
        match_images(image, image, nano, **options)  # type: ignore[arg-type]


def test_an_attempt_reaches_a_bar_by_share_and_number() -> None:
    attempt = Attempt(1.0, 90.0, 168, 168, matches=200, inliers=60)
    assert attempt.share == 0.3
    assert attempt.reaches((0.3, 60)) and not attempt.reaches((0.31, 60))
    assert not attempt.reaches((0.3, 61))
    assert Attempt(1.0, 0.0, 168, 168, 0, 0).share == 0
