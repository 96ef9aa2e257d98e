from __future__ import annotations

from typing import Any

import pytest
import torch
from local import Local, texture

from kornia_ditf import FusedDescriptor, TiledDescriptor, create_descriptor, match
from kornia_ditf.dense import DescriptorSpec
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.testing import check_descriptor
from kornia_ditf.upsamplers import UpsampledDescriptor, Upsampler, parse_upsampler


def fine(base: Any, text: str = "bilinear(2)") -> UpsampledDescriptor:
    return UpsampledDescriptor(base, parse_upsampler(text))


def load(**options: Any) -> UpsampledDescriptor:
    return fine(create_descriptor("nano", long_side=48, **options), "joint_bilateral(2)")


def test_an_upsampled_descriptor_keeps_the_rules_of_descriptors() -> None:
    spec = DescriptorSpec(
        name="fine", load=load, width=160, pixels_per_token=2, source="a test", license="CC0"
    )
    check_descriptor(spec)


@pytest.mark.parametrize(
    "base",
    [
        Local(),
        FusedDescriptor([Local(), Local()], weights=[1, 0.5]),
        TiledDescriptor(Local(), 2, multiple=8),
    ],
)
def test_every_descriptor_can_be_upsampled(base: Any) -> None:
    image = texture(96, 144)
    coarse, described = base(image), fine(base)(image)
    assert described.grid == (2 * coarse.grid[0], 2 * coarse.grid[1])
    assert described.frame == coarse.frame and fine(base).width == described.data.shape[1]
    if base.token_norm is not None:
        norms = described.data.norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, 1.25**0.5))


def test_a_planted_shift_is_found_on_the_finer_grid() -> None:
    large = texture(112, 144)
    a, b = (fine(Local())(large[..., y : y + 96, y : y + 128]) for y in (0, 8))
    found = match(a, b)
    right = ((found.points_a - found.points_b - 8).abs().amax(1) < 1).float().mean()
    assert len(found) > 450 and float(right) > 0.9


def test_create_descriptor_upsamples_by_name_by_value_and_not_at_all() -> None:
    image = torch.rand(3, 32, 48)
    for given in ("bilinear(2)", Upsampler(parse_upsampler("bilinear").function)):
        descriptor = create_descriptor("nano", long_side=48, upsample=given)
        assert descriptor(image).grid == (16, 24)
        assert [one.grid for one in descriptor.describe_many([image])] == [(16, 24)]
    assert create_descriptor("nano", long_side=48, upsample="none")(image).grid == (8, 12)
    with pytest.raises(InvalidArgumentError, match="did you mean 'bilinear'"):
        create_descriptor("nano", upsample="bilinea")


def test_the_identity_names_the_upsampler_or_is_none() -> None:
    base = create_descriptor("nano", massive_channels=())
    named = fine(base, "bilinear(2, limit=9)").identity
    assert named == f"upsampled bilinear(2) of {base.identity}"
    own = Upsampler(lambda image, features, size: features, factor=1)
    assert UpsampledDescriptor(base, own).identity is None
