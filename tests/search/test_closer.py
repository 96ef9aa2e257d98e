"""A closer look moves points to where they belong, and keeps every match."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kornia_ditf import create_descriptor
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.preprocess import read_image
from kornia_ditf.search.verified import ImageMatches, match_images

SHIFT = torch.tensor([45.0, 27.0])
LARGE = read_image(Path(__file__).parents[2] / "examples" / "data" / "graffiti_a.jpg")
IMAGE_A, IMAGE_B = LARGE[..., 100:400, 100:480], LARGE[..., 127:427, 145:525]


@pytest.fixture(scope="module")
def nano() -> DenseDescriptor:
    return create_descriptor("nano", long_side=96)


def errors(found: ImageMatches) -> torch.Tensor:
    return (found.matches.points_a - found.matches.points_b - SHIFT).norm(dim=1)


@pytest.fixture(scope="module")
def plain(nano: DenseDescriptor) -> ImageMatches:
    return match_images(IMAGE_A, IMAGE_B, nano, search="none", refined=False)


def test_points_are_found_again_more_exactly_and_none_is_lost(
    nano: DenseDescriptor, plain: ImageMatches
) -> None:
    closer = match_images(IMAGE_A, IMAGE_B, nano, search="none", refined=False, zoom=3)
    assert torch.equal(closer.matches.points_a, plain.matches.points_a)
    assert closer.threshold == pytest.approx(plain.threshold / 3, rel=0.02)
    right = errors(plain) < plain.threshold
    assert int(right.sum()) > 120
    before, after = errors(plain)[right], errors(closer)[right]
    assert after.median() < 0.5 * before.median()
    # Also where two cells meet.
    cell = round(127 * 0.6)
    near = (closer.matches.points_a[right] % cell - cell / 2).abs().amax(1) > cell / 2 - 8
    assert int(near.sum()) > 30 and after[near].median() < 1.3 * after[~near].median() + 0.2


def test_looking_closer_than_the_images_own_pixels_stops_there(
    nano: DenseDescriptor, plain: ImageMatches
) -> None:
    small_a, small_b = IMAGE_A[..., :150, :150], IMAGE_B[..., :150, :150]
    most, more = (
        match_images(small_a, small_b, nano, search="none", refined=False, zoom=zoom)
        for zoom in (2, 9)
    )
    assert torch.equal(most.matches.points_b, more.matches.points_b)
    assert more.threshold == most.threshold == 4


def test_a_turned_image_is_looked_at_upright(nano: DenseDescriptor) -> None:
    turned = IMAGE_B.rot90(1, (2, 3))
    found = match_images(IMAGE_A, turned, nano, search="turns", refined=False, zoom=2)
    x, y = found.matches.points_b.unbind(1)
    upright = torch.stack([IMAGE_B.shape[3] - 1 - y, x], 1)
    off = (found.matches.points_a - upright - SHIFT).norm(dim=1)
    assert found.attempts[found.chosen].turn == 270 and off.median() < found.threshold / 2


def test_a_zoom_below_one_is_refused(nano: DenseDescriptor) -> None:
    with pytest.raises(InvalidArgumentError, match="zoom must be"):
        match_images(IMAGE_A, IMAGE_B, nano, search="none", zoom=0)
