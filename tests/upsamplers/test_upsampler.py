from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.errors import HubError, InvalidArgumentError, MissingExtraError
from kornia_ditf.types import DescriptorMap, Discarded, Frame
from kornia_ditf.upsamplers import Upsampler, filters, parse_upsampler
from kornia_ditf.upsamplers.filters import bilinear

FRAME = Frame(image_size=(330, 500), model_size=(48, 64))


def planted(row: int, column: int) -> DescriptorMap:
    data = torch.zeros(1, 2, 6, 8)
    data[:, 0, row, column] = 1
    return DescriptorMap(data, FRAME)


@pytest.mark.parametrize(
    "text", ["bilinear(2)", "bilinear(2.5)", "joint_bilateral(4)", "bilinear(3px)"]
)
def test_a_planted_peak_stays_at_its_pixel(text: str) -> None:
    coarse = planted(2, 5)
    fine = parse_upsampler(text)(coarse, torch.full((3, 330, 500), 0.5))
    assert fine.frame == coarse.frame and fine.grid > coarse.grid
    weights = fine.data[0, 0].flatten()
    centre = (weights[:, None] * fine.centres()).sum(0) / weights.sum()
    # Samples that do not lie evenly in a token weigh it unevenly, by less than their distance.
    close = 0.01 if fine.grid[0] % 6 == 0 == fine.grid[1] % 8 else 0.3 * 500 / fine.grid[1]
    torch.testing.assert_close(centre, coarse.centres()[2 * 8 + 5], atol=close, rtol=0)


def test_joint_bilateral_is_the_weighted_mean_of_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    data, image = (torch.rand(1, c, 6, 7, generator=generator) for c in (4, 3))
    image = F.interpolate(image, (12, 14))
    described = DescriptorMap(data, Frame((12, 14), (12, 14)))
    fine = parse_upsampler("joint_bilateral(2, 0.2)")(described, image)
    dense = data[0].repeat_interleave(2, 1).repeat_interleave(2, 2)
    for y, x in ((0, 0), (5, 6), (11, 13)):
        total, norm = torch.zeros(4), 0.0
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                v, u = min(max(y + dy, 0), 11), min(max(x + dx, 0), 13)
                colour = float((image[0, :, y, x] - image[0, :, v, u]).abs().sum())
                weight = float(torch.tensor(-(dy**2 + dx**2) / 2 - colour**2 / (2 * 0.2**2)).exp())
                total, norm = total + weight * dense[:, v, u], norm + weight
        torch.testing.assert_close(fine.data[0, :, y, x], total / norm, atol=1e-5, rtol=1e-5)


def test_joint_bilateral_changes_features_where_the_image_changes() -> None:
    columns = torch.arange(64)
    image = (columns >= 29).float().expand(1, 3, 64, 64)  # within a token
    truth = (columns >= 29).float()
    coarse = F.avg_pool2d(truth.expand(1, 1, 64, 64), 8)
    described = DescriptorMap(coarse, Frame((64, 64), (64, 64)))
    errors = [
        float((parse_upsampler(f"{name}(8)")(described, image).data - truth).abs().mean())
        for name in ("joint_bilateral", "bilinear")
    ]
    assert errors[0] < 0.9 * errors[1]


def test_channels_are_filtered_in_parts_that_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described = DescriptorMap(torch.rand(1, 7, 6, 8), FRAME)
    image, upsampler = torch.rand(3, 48, 64), parse_upsampler("joint_bilateral(2)")
    whole = upsampler(described, image).data
    monkeypatch.setattr(filters, "WORKING_BYTES", 1)
    torch.testing.assert_close(upsampler(described, image).data, whole)


@pytest.mark.parametrize("name", ["bilinear", "joint_bilateral"])
def test_dtype_discarded_channels_and_batch_are_kept(name: str) -> None:
    discarded = (Discarded((1,), "preset"),) * 2
    described = DescriptorMap(torch.rand(2, 3, 6, 8).bfloat16(), FRAME, discarded)
    fine = parse_upsampler(f"{name}(2)")(described, torch.rand(2, 3, 48, 64))
    assert fine.data.dtype == torch.bfloat16 and fine.data.shape == (2, 3, 12, 16)
    assert fine.discarded == discarded
    with pytest.raises(InvalidArgumentError, match="a map of 2 images is upsampled with as many"):
        parse_upsampler("bilinear")(described, torch.rand(3, 48, 64))


def test_upsampling_passes_gradients() -> None:
    data = torch.rand(1, 3, 6, 8, requires_grad=True)
    fine = parse_upsampler("joint_bilateral(2)")(
        DescriptorMap(data, FRAME), torch.rand(3, 48, 64), token_norm=1.0
    )
    fine.data.sum().backward()  # type: ignore[no-untyped-call]
    assert data.grad is not None and bool((data.grad != 0).any())


def test_descriptors_that_have_one_length_keep_it() -> None:
    described = DescriptorMap(F.normalize(torch.randn(1, 5, 6, 8), dim=1) * 3, FRAME)
    described.data[:, :, 0, 0] = 0
    upsampler = parse_upsampler("bilinear(4)")
    norms = upsampler(described, torch.rand(3, 48, 64), token_norm=3.0).data.norm(dim=1)
    torch.testing.assert_close(norms[:, 2:], torch.full_like(norms[:, 2:], 3.0))
    assert float(norms[0, 0, 0]) == 0


def test_a_map_above_the_limit_says_its_size_and_what_to_type() -> None:
    flux = DescriptorMap(
        torch.empty(1, 1, 1, 1).expand(1, 3072, 60, 60), Frame((960,) * 2, (960,) * 2)
    )
    with pytest.raises(InvalidArgumentError) as caught:
        parse_upsampler("bilinear(8)")(flux, torch.rand(3, 960, 960))
    said = str(caught.value)
    assert "480 x 480 tokens with 3072 channels would take 2.83 GB" in said
    assert "a factor of 6.7" in said and "'bilinear(8, limit=3)'" in said
    assert parse_upsampler("bilinear(8, limit=3)").limit_gb == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bilinaer(2)", "did you mean 'bilinear'"),
        ("bilinear(0.5)", "factor must be 1 or more, got 0.5"),
        ("bilinear(0px)", "stride must be above 0"),
        ("bilinear(x)", "must hold numbers, got 'x'"),
        ("bilinear(2, 3)", r"the upsampler is bilinear\(FACTOR\)"),
        ("bilinear(2", "upsample must be one of"),
        ("bilinear(2, limit=none)", "must hold numbers, got 'none'"),
    ],
)
def test_a_wrong_upsampler_says_what_is_right(text: str, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        parse_upsampler(text)


def test_a_stride_coarser_than_the_tokens_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="coarser than the tokens, which are 8 px apart"):
        parse_upsampler("bilinear(16px)")(planted(0, 0), torch.rand(3, 48, 64))


class Sized(nn.Module):
    """As AnyUp: told the size of the result."""

    def forward(self, image: Tensor, features: Tensor, output_size: Any = None) -> Tensor:
        assert image.shape[2:] == (48, 64) and float(image.min()) < 0  # as it is, normalised
        return F.interpolate(features, output_size or image.shape[2:], mode="bilinear")


class Unsized(nn.Module):
    """As FeatUp: the result is as large as the image."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times, self.weight = times, nn.Parameter(torch.ones(1).double())

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        assert features.dtype == torch.float64
        return F.interpolate(features, image.shape[2] * self.times, mode="bilinear")[
            ..., : image.shape[3]
        ]


def test_modules_with_and_without_an_output_size_upsample() -> None:
    described = DescriptorMap(torch.rand(1, 3, 8, 8), Frame((48, 64), (48, 64)))
    image = torch.rand(3, 48, 64) * 0.2
    expected = bilinear(image[None], described.data, (16, 16))
    for module in (Sized(), Unsized()):
        fine = Upsampler(module, factor=2)(described, image)
        torch.testing.assert_close(fine.data, expected)
    with pytest.raises(InvalidArgumentError, match=r"shape \(1, 3, 16, 16\) and returned"):
        Upsampler(Unsized(times=2), factor=2)(described, image)


def package(monkeypatch: pytest.MonkeyPatch, name: str, module: str, **values: Any) -> None:
    for each in (name, f"{name}.{module}"):
        made = ModuleType(each)
        made.__spec__ = ModuleSpec(each, None)
        monkeypatch.setitem(sys.modules, each, made)
    for key, value in values.items():
        setattr(sys.modules[f"{name}.{module}"], key, value)


def test_anyup_and_featup_are_used_where_their_packages_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("anyup", "featup"):
        with pytest.raises(
            MissingExtraError,
            match=f"package {name} is not installed; type `pip",
        ):
            parse_upsampler(f"{name}(2)")
    states: dict[str, Any] = {
        "anyup_paper.pth": {},
        "dino16_jbu_stack_cocostuff.ckpt": {
            "state_dict": {"upsampler.fixup_proj.1.weight": torch.zeros(3, 3, 1, 1), "model.x": 0}
        },
    }

    def download(address: str, **options: Any) -> Any:
        name = address.split("/")[-1]
        if name not in states:
            raise OSError("no network")
        return states[name]

    class Stack(nn.Module):
        def __init__(self, kind: str, width: int) -> None:
            super().__init__()
            self.fixup_proj = nn.Sequential(nn.Dropout(0.2), nn.Conv2d(width, width, 1, bias=False))

        def forward(self, features: Tensor, image: Tensor) -> Tensor:
            return F.interpolate(features, image.shape[2:], mode="bilinear") + self.fixup_proj(
                image
            )

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    package(monkeypatch, "anyup", "model", AnyUp=Sized)
    package(monkeypatch, "featup", "upsamplers", get_upsampler=Stack)
    described, image = planted(2, 5), torch.rand(3, 48, 64) * 0.2
    fine = parse_upsampler("anyup(2, paper)")
    assert str(fine) == "anyup(2, paper)"
    torch.testing.assert_close(
        fine(described, image).data, bilinear(image, described.data, (12, 16))
    )
    with pytest.raises(HubError, match="put the file into"):
        parse_upsampler("anyup(2)")(described, image)
    with pytest.raises(InvalidArgumentError, match="for 3 channels, got 2; anyup takes"):
        parse_upsampler("featup(2, dino16)")(described, image)
    wide = DescriptorMap(torch.rand(1, 3, 6, 8), FRAME)
    assert parse_upsampler("featup(16, dino16)")(wide, image).grid == (96, 128)
