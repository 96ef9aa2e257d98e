from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.noise import RectifiedFlow, VariancePreserving, draw_noise

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
