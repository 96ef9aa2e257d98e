from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.treatments import TREATMENTS, apply_treatment, modulate
from kornia_ditf.types import Tap, TokenNorm


def random_tap(seed: int = 0, width: int = 32, spike: float = 0.0) -> Tap:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 30, width, generator=generator)
    x[..., [3, 17]] += spike
    shift, scale = 0.5 * torch.randn(2, 2, width, generator=generator)
    return Tap(x, shift, scale, grid=(5, 6))


def token_similarity(tokens: Tensor) -> float:
    """Mean cosine between different tokens of one image."""
    unit = F.normalize(tokens[0] - 0, dim=-1)
    count = len(unit)
    return float(((unit @ unit.T).sum() - count) / (count * (count - 1)))


@given(seed=st.integers(0, 100))
def test_modulation_equals_its_definition_in_double_precision(seed: int) -> None:
    tap = random_tap(seed)
    assert tap.shift is not None and tap.scale is not None
    x = tap.x.double()
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    expected = (1 + tap.scale.double()[:, None]) * normed + tap.shift.double()[:, None]
    torch.testing.assert_close(modulate(tap).double(), expected, rtol=0, atol=1e-5)


def test_the_blocks_own_epsilon_is_used() -> None:
    small = Tap(1e-3 * torch.randn(1, 4, 8), None, None, (2, 2), TokenNorm(eps=1.0))
    assert modulate(small).abs().max() < 0.1


def test_root_mean_square_families_keep_the_mean() -> None:
    tap = Tap(torch.full((1, 4, 8), 3.0), None, None, (2, 2), TokenNorm("rms", 1e-6))
    torch.testing.assert_close(modulate(tap), torch.ones(1, 4, 8))


def test_affine_weights_of_another_dtype_are_used() -> None:
    weight, bias = torch.tensor([2.0, 0.5, -1.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    x = torch.randn(1, 4, 4)
    norm = TokenNorm("layer", 1e-6, weight.bfloat16(), bias.bfloat16())
    torch.testing.assert_close(norm(x), F.layer_norm(x, (4,), weight, bias, 1e-6))


def test_a_modulation_per_token_is_applied_per_token() -> None:
    tap = random_tap()
    assert tap.shift is not None and tap.scale is not None
    repeated = Tap(
        tap.x,
        tap.shift[:, None].expand_as(tap.x),
        tap.scale[:, None].expand_as(tap.x),
        tap.grid,
    )
    assert torch.equal(modulate(repeated), modulate(tap))


def test_discarded_channel_cannot_leak_through_layernorm() -> None:
    calm, spiked = random_tap(spike=0.0), random_tap(spike=500.0)
    discarded = [apply_treatment(tap, "adaln+discard", [3, 17]) for tap in (calm, spiked)]
    assert torch.equal(*discarded)
    assert not torch.allclose(apply_treatment(calm, "adaln"), apply_treatment(spiked, "adaln"))


def test_discarded_channels_are_what_adaln_makes_of_zero() -> None:
    tap = random_tap(spike=50.0)
    assert tap.shift is not None and tap.scale is not None
    x = tap.x.clone()
    x[..., [3, 17]] = 0
    zero = -x.mean(-1) / (x.var(-1, correction=0) + 1e-6).sqrt()
    expected = (1 + tap.scale[:, None, 3]) * zero + tap.shift[:, None, 3]
    torch.testing.assert_close(apply_treatment(tap, "adaln+discard", [3, 17])[..., 3], expected)


def test_discard_restores_the_contrast_between_tokens() -> None:
    tap = random_tap(spike=1000.0)
    flat = Tap(tap.x, 0 * tap.x[:, 0], 0 * tap.x[:, 0], tap.grid)
    assert token_similarity(apply_treatment(flat, "raw")) > 0.99
    assert token_similarity(apply_treatment(flat, "adaln")) > 0.99
    assert abs(token_similarity(apply_treatment(flat, "adaln+discard", [3, 17]))) < 0.1


def test_every_treatment_is_what_its_name_says() -> None:
    tap = random_tap(spike=50.0)
    x = tap.x.clone()
    x[..., [3, 17]] = 0
    expected = {
        "raw": tap.x,
        "adaln": modulate(tap),
        "adaln+discard": modulate(Tap(x, tap.shift, tap.scale, tap.grid)),
        "discard+layernorm": F.layer_norm(x, (32,), eps=1e-6),
    }
    assert set(expected) == set(TREATMENTS)
    for treatment in TREATMENTS:
        assert torch.equal(apply_treatment(tap, treatment, [3, 17]), expected[treatment])


def test_an_unknown_treatment_names_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match=r"adaln\+discard.*got 'adain'"):
        apply_treatment(random_tap(), "adain")  # type: ignore[arg-type]


@pytest.mark.parametrize("shared", ["none", "image", "token"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_the_method_is_its_formula(shared: str, kind: Literal["layer", "rms"]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 150, 16, generator=generator), torch.rand(16, generator=generator)
    shape = {"image": (3, 1, 16), "token": (3, 150, 16)}.get(shared)
    shift, scale = (
        None if shape is None else torch.randn(shape, generator=generator) for _ in range(2)
    )
    tap = Tap(x, shift, scale, (10, 15), TokenNorm(kind, weight=weight))
    kept = x.clone()
    kept[..., [2, 5]] = 0
    centred = kept - kept.mean(-1, keepdim=True) if kind == "layer" else kept
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    expected = normed if shift is None or scale is None else (1 + scale) * normed + shift
    found = apply_treatment(tap, "adaln+discard", [2, 5])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with pytest.raises(InvalidArgumentError, match=r"channels must lie in \[0, 15\], got \[16\]"):
        apply_treatment(tap, "adaln+discard", [16])


def test_a_treatment_lets_gradients_through() -> None:
    x = torch.randn(1, 4, 8, requires_grad=True)
    apply_treatment(Tap(x, None, None, (2, 2)), "adaln+discard").sum().backward()
    assert x.grad is not None
