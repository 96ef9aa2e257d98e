from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf import DescriptorMap, Discarded, FusedDescriptor, create_descriptor, match
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError, MissingExtraError, UnknownBackboneError
from kornia_ditf.fusion import FUSIONS, resample
from kornia_ditf.preprocess import as_image, fit_image
from kornia_ditf.registry.lookup import find_descriptor, list_descriptors
from kornia_ditf.testing import check_descriptor
from kornia_ditf.types.joining import fuse


class Shades(DenseDescriptor):
    """Describes square patches by mean colours, and by their squares."""

    width = 6

    def __init__(self, side: int, identity: str | None = None) -> None:
        super().__init__()
        self.side, self._identity = side, identity

    @property
    def identity(self) -> str | None:
        return self._identity

    def forward(self, image: Any, prompts: Any = None) -> DescriptorMap:
        pixels, frame = fit_image(as_image(image), None, 16)
        grid = (pixels.shape[2] // self.side, pixels.shape[3] // self.side)
        mean = F.interpolate(pixels, grid, mode="area")
        told = len(prompts or "") if isinstance(prompts, str) else 0
        return DescriptorMap(torch.cat([mean + told, mean.square()], 1), frame)


def sd_dino(features1: Tensor, features2: Tensor, w1: float, w2: float) -> Tensor:
    """As sd-dino's released code fuses, tokens first: divide by the norm, weigh, concatenate."""
    features1 = features1 / torch.linalg.norm(features1, dim=-1, keepdim=True)
    features2 = features2 / torch.linalg.norm(features2, dim=-1, keepdim=True)
    return torch.cat((w1 * features1, w2 * features2), dim=-1)


def test_the_arithmetic_is_sd_dinos() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 5, 3, 4, generator=generator)
    b = 100 * torch.randn(2, 7, 3, 4, generator=generator)
    expected = sd_dino(*(x.flatten(2).transpose(1, 2) for x in (a, b)), 0.3, 0.7)
    found = fuse([a, b], [0.3, 0.7]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=4), st.integers(0, 2**32))
def test_the_cosine_is_the_mean_of_the_parts_cosines_by_squared_weights(
    weights: list[float], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = (
        [torch.randn(1, 3 + i, 1, 1, generator=generator) for i in range(len(weights))]
        for _ in range(2)
    )
    cosine = F.cosine_similarity(fuse(x, weights), fuse(y, weights)).item()
    squares = torch.tensor(weights) ** 2
    parts = torch.stack([F.cosine_similarity(a, b).flatten()[0] for a, b in zip(x, y, strict=True)])
    assert abs(cosine - (squares @ parts / squares.sum()).item()) < 1e-5


def test_tokens_of_zeros_and_of_extreme_lengths_stay_finite() -> None:
    parts = [torch.tensor([0.0, 1e-30, 1e15]).view(1, 1, 1, 3), torch.ones(1, 1, 1, 3)]
    assert fuse(parts, [1, 1]).flatten().tolist() == [0, 1, 1, 1, 1, 1]


def test_equal_grids_are_left_to_the_bit() -> None:
    data = torch.randn(1, 2, 3, 4)
    assert resample(data, (3, 4)) is data


def test_grids_are_resampled_as_upsampling_to_them_would() -> None:
    images = torch.rand(2, 3, 48, 96)
    fused = FusedDescriptor([Shades(16), Shades(8)], weights=[1, 2])(images)
    assert fused.grid == (6, 12) and fused.frame.image_size == (48, 96)
    coarse = F.interpolate(Shades(16)(images).data, (6, 12), mode="bilinear")
    torch.testing.assert_close(fused.data, fuse([coarse, Shades(8)(images).data], [1, 2]))


@pytest.mark.parametrize(
    ("grid", "expected"),
    [("finest", (6, 12)), ("first", (3, 6)), ((4, 5), (4, 5)), ([4, 5], (4, 5))],
)
def test_the_grid_may_be_stated(grid: Any, expected: tuple[int, int]) -> None:
    fused = FusedDescriptor([Shades(16), Shades(8)], grid=grid)
    assert fused(torch.rand(1, 3, 48, 96)).grid == expected


def test_a_fusion_is_a_descriptor_like_any_other() -> None:
    check_descriptor(FusedDescriptor([Shades(16), Shades(8)]))


def test_a_fusion_of_transformers_finds_massive_channels_in_all_images_together() -> None:
    fused = create_descriptor("nano+nano", long_side=64, massive_channels=None)
    maps = fused.describe_together([torch.rand(3, 40, 60), torch.rand(3, 60, 40)])
    assert [each.frame.image_size for each in maps] == [(40, 60), (60, 40)]
    assert len(match(maps[0], maps[1])) > 0


def test_its_name_says_what_it_is_made_of() -> None:
    named = FusedDescriptor([Shades(16, "a"), Shades(8, "b")], weights=[1, 2])
    assert named.identity == "fused (1.0, 2.0) finest of ['a', 'b']"
    assert FusedDescriptor([Shades(16, "a"), Shades(8)]).identity is None
    assert named.width == 12


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [0, 0], [1, -1], [1, float("nan")], ["1", 1]])
def test_wrong_weights_are_refused(weights: Sequence[Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="weights must be 2 numbers"):
        FusedDescriptor([Shades(16), Shades(8)], weights=weights)


@pytest.mark.parametrize("grid", ["coarsest", (3,), (0, 3), 5])
def test_a_wrong_grid_is_refused(grid: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="grid"):
        FusedDescriptor([Shades(16)], grid=grid)


@pytest.mark.parametrize("parts", [[], ["nano"]])
def test_wrong_parts_are_refused(parts: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="parts must be dense descriptors"):
        FusedDescriptor(parts)


def test_names_with_a_plus_between_them_are_fused() -> None:
    spec = find_descriptor("nano+nano")
    assert (spec.width, spec.pixels_per_token, spec.license) == (320, 4, "Apache-2.0")
    fused = create_descriptor("nano+nano", weights=(1, 3), grid=(5, 5), long_side=64)
    assert isinstance(fused, FusedDescriptor)
    assert (fused.weights, fused.grid) == ((1.0, 3.0), (5, 5))
    assert fused(torch.rand(1, 3, 64, 64)).data.shape == (1, 320, 5, 5)


def test_options_go_to_every_part_or_to_one() -> None:
    fused = create_descriptor("nano+nano", treatment="raw", options={"nano": {"block": 2}})
    configs = [part.config for part in fused.parts]  # type: ignore[union-attr]
    assert [(each.block, each.treatment) for each in configs] == [(2, "raw")] * 2
    with pytest.raises(
        InvalidArgumentError, match=r"by parts of nano\+nano \(nano, nano\), got 'x"
    ):
        create_descriptor("nano+nano", options={"x": {}})
    with pytest.raises(InvalidArgumentError, match="nano has no option 'colour'"):
        create_descriptor("nano+nano", colour="red")


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(UnknownBackboneError, match="no backbone is named 'nono'.*mean 'nano'"):
        create_descriptor("nano+nono")


@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: fusion.name)
def test_a_named_fusion_is_listed_and_fits_the_specs_of_its_parts(fusion: Any) -> None:
    installed = list_descriptors()
    assert installed[fusion.name].width == fusion.width
    known = [installed[part] for part in fusion.parts if part in installed]
    if len(known) == len(fusion.parts):
        assert fusion.width == sum(spec.width for spec in known)
        assert fusion.pixels_per_token == min(spec.pixels_per_token for spec in known)


def test_a_named_fusion_says_which_plugin_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from kornia_ditf.registry import lookup as registry

    monkeypatch.setenv("KORNIA_DITF_PLUGINS", "")
    registry.forget_plugins()
    with pytest.raises(MissingExtraError, match=r"sd1\.5 .*pip install kornia-ditf-sd"):
        create_descriptor("sd-dino")
    registry.forget_plugins()


def test_a_fused_map_says_what_its_parts_discarded() -> None:
    first, second = (
        create_descriptor("nano", long_side=64, block=0, massive_channels=channels)
        for channels in ((2, 5), (7,))
    )
    fused = FusedDescriptor([Shades(16), first, second])
    expected = Discarded((6 + 2, 6 + 5, 6 + 160 + 7), "configuration")
    assert fused(torch.rand(2, 3, 64, 64)).discarded == (expected, expected)
    assert FusedDescriptor([Shades(16)])(torch.rand(1, 3, 64, 64)).discarded == ()
