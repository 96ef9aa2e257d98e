from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.noise import (
    RectifiedFlow,
    VariancePreserving,
    draw_image_noise,
    draw_noise,
    exact_pixels,
)

LINEAR = {
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
}


@given(timestep=st.floats(0, 1000))
def test_rectified_flow_walks_straight_from_latent_to_noise(timestep: float) -> None:
    latent, noise = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), -5.0)
    mixed = RectifiedFlow().mix(latent, noise, timestep).item()
    assert mixed == pytest.approx(3 - 8 * timestep / 1000, abs=1e-5)


def test_clean_timestep_returns_the_latent() -> None:
    latent = torch.randn(2, 4, 3, 5)
    assert torch.equal(RectifiedFlow().mix(latent, torch.randn(2, 4, 3, 5), 0), latent)


@given(timestep=st.integers(0, 999))
def test_variance_preserving_keeps_unit_variance(timestep: int) -> None:
    signal, spread = VariancePreserving.from_scheduler_config(LINEAR).weights(timestep)
    assert signal**2 + spread**2 == pytest.approx(1, abs=1e-9)


def test_variance_preserving_equals_the_models_own_add_noise() -> None:
    from diffusers import DDIMScheduler

    latent, noise = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)
    for config in (LINEAR, {**LINEAR, "beta_schedule": "scaled_linear", "beta_start": 0.00085}):
        scheduler = DDIMScheduler(**config)
        for timestep in (0, 1, 261, 999):
            expected = scheduler.add_noise(latent, noise, torch.tensor([timestep, timestep]))
            mixed = VariancePreserving.from_scheduler_config(config).mix(latent, noise, timestep)
            torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-6)


def test_keys_of_another_sampler_are_ignored() -> None:
    config = {**LINEAR, "_class_name": "DPMSolverMultistepScheduler", "solver_order": 2}
    assert len(VariancePreserving.from_scheduler_config(config).alphas_cumprod) == 1000


@pytest.mark.parametrize("timestep", [-1, 1000.5, 2600, float("nan")])
def test_timestep_out_of_range_is_refused(timestep: float) -> None:
    with pytest.raises(InvalidArgumentError, match=r"timestep must lie in \[0, 1000\]"):
        RectifiedFlow().check(timestep)


@pytest.mark.parametrize("timestep", [1000, 12.5])
def test_ddpm_models_have_integer_timesteps_below_a_thousand(timestep: float) -> None:
    with pytest.raises(InvalidArgumentError, match="integer timesteps from 0 to 999"):
        VariancePreserving.from_scheduler_config(LINEAR).check(timestep)


def test_a_larger_ensemble_begins_with_the_draws_of_a_smaller_one() -> None:
    small, large = draw_noise((2, 4, 3, 3), seed=7), draw_noise((5, 4, 3, 3), seed=7)
    assert torch.equal(small, large[:2])
    assert not torch.equal(small, draw_noise((2, 4, 3, 3), seed=8))


def test_drawing_noise_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    draw_noise((2, 4, 3, 3), seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


def image_noise(images: Tensor, *, seed: int = 0, ensemble: int = 2) -> Tensor:
    return draw_image_noise(images, (ensemble, 4, 16, 16), seed=seed)


def test_noise_depends_on_the_image_and_the_seed_and_not_on_the_batch() -> None:
    images = torch.rand(4, 3, 8, 12)
    together, turned = image_noise(images), image_noise(images.flip(0)).flip(0)
    alone = torch.cat([image_noise(image[None]) for image in images])
    assert torch.equal(together, alone) and torch.equal(together, turned)
    assert torch.equal(image_noise(images.double()), together)
    assert not torch.isclose(image_noise(images, seed=1), together).any(dim=2).all()


def test_draws_of_all_images_seeds_and_purposes_are_independent() -> None:
    images = torch.rand(3, 3, 8, 12)
    images[1] = images[0]
    images[1, 0, 0, 0] = 1 - images[0, 0, 0, 0].round()  # one pixel
    drawn = [image_noise(images), image_noise(images, seed=1)]
    drawn.append(draw_image_noise(images, (2, 4, 16, 16), seed=0, purpose="posterior"))
    correlation = torch.corrcoef(torch.cat(drawn).flatten(2).flatten(0, 1))
    assert (correlation - torch.eye(18)).abs().max() < 0.15  # five standard deviations of 1 / 32


def test_differences_below_an_eight_bit_level_do_not_change_the_noise() -> None:
    levels = torch.randint(0, 256, (1, 3, 8, 12)) / 255
    noise = image_noise(levels)
    assert torch.equal(image_noise((levels + 1e-4).clamp(0, 1)), noise)
    assert torch.equal(image_noise(levels.contiguous(memory_format=torch.channels_last)), noise)
    levels[0, 0, 0, 0] = (levels[0, 0, 0, 0] - 1 / 255).abs()
    assert not torch.equal(image_noise(levels), noise)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_levels_of_eight_bits_survive_every_dtype(dtype: torch.dtype) -> None:
    levels = torch.arange(256).reshape(1, 1, 16, 16) / 255
    assert torch.equal(exact_pixels(levels.to(dtype)), levels)
    assert exact_pixels(levels) is levels
