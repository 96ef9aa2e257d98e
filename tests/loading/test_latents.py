"""Latents of every kind of VAE, against the arithmetic of the pipelines that decode them."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.latents import encode_images, execution_place, pixels_per_cell

KL: dict[str, Any] = {
    "block_out_channels": (8, 8, 8, 8),
    "latent_channels": 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
VIDEO: dict[str, Any] = {
    "base_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "z_dim": 2,
    "latents_mean": [0.5, -0.5],
    "latents_std": [2.0, 0.5],
}
DC: dict[str, Any] = {
    "latent_channels": 4,
    "encoder_block_out_channels": (8,) * 6,
    "decoder_block_out_channels": (8,) * 6,
    "encoder_layers_per_block": (1,) * 6,
    "decoder_layers_per_block": (1,) * 6,
    "encoder_qkv_multiscales": ((),) * 6,
    "decoder_qkv_multiscales": ((),) * 6,
    "scaling_factor": 0.4,
}


def make(class_name: str, **config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = getattr(diffusers, class_name)(**config)
    return vae.eval().requires_grad_(False)


def mode(vae: Any, images: Tensor) -> Tensor:
    encoded = vae.encode(2 * images - 1)
    latent: Tensor = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
    return latent


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_a_plain_vae_is_shifted_and_scaled(images: Tensor) -> None:
    stages = {"down_block_types": ("DownEncoderBlock2D",) * 4}
    stages["up_block_types"] = ("UpDecoderBlock2D",) * 4
    vae = make("AutoencoderKL", **KL, **stages, shift_factor=0.1, scaling_factor=0.4)
    assert torch.equal(encode_images(vae, images), (mode(vae, images) - 0.1) * 0.4)
    assert pixels_per_cell(vae) == 8


@pytest.mark.parametrize("class_name", ["AutoencoderKLWan", "AutoencoderKLQwenImage"])
def test_a_video_vae_gets_one_frame_and_is_normalised_by_channel(
    class_name: str, images: Tensor
) -> None:
    vae = make(class_name, **VIDEO)
    raw = mode(vae, images.unsqueeze(2))[:, :, 0]
    expected = torch.stack([(raw[:, 0] - 0.5) / 2, (raw[:, 1] + 0.5) / 0.5], 1)
    found = encode_images(vae, images)
    torch.testing.assert_close(found, expected)
    assert found.shape == (2, 2, 8, 12) and pixels_per_cell(vae) == 8


def test_statistics_may_be_buffers(images: Tensor) -> None:
    sizes = {"block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    layers = {"layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5}
    vae = make("AutoencoderKLLTXVideo", latent_channels=4, scaling_factor=2.0, **sizes, **layers)
    vae.latents_mean.fill_(0.25)
    vae.latents_std.fill_(0.5)
    raw = mode(vae, images.unsqueeze(2))[:, :, 0]
    torch.testing.assert_close(encode_images(vae, images), (raw - 0.25) * 2.0 / 0.5)
    assert pixels_per_cell(vae) == 32


def test_packed_latents_are_normalised_as_they_are_packed(images: Tensor) -> None:
    from diffusers.pipelines.flux2.pipeline_flux2 import Flux2Pipeline

    vae = make("AutoencoderKLFlux2", **KL)
    vae.bn.running_mean.copy_(torch.linspace(-1, 1, 16))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2, 16))
    packed = Flux2Pipeline._patchify_latents(mode(vae, images))
    expected = vae.bn(packed)  # in evaluation mode: by its statistics
    torch.testing.assert_close(encode_images(vae, images), expected)
    assert encode_images(vae, images).shape == (2, 16, 4, 6) and pixels_per_cell(vae) == 16


def test_a_vae_without_posterior_is_only_scaled_and_has_no_sample(images: Tensor) -> None:
    vae = make("AutoencoderDC", **DC)
    assert torch.equal(encode_images(vae, images), mode(vae, images) * 0.4)
    assert pixels_per_cell(vae) == 32
    with pytest.raises(InvalidArgumentError, match="AutoencoderDC has none"):
        encode_images(vae, images, sample=True)


def test_a_sample_is_seeded_by_its_image(images: Tensor) -> None:
    vae = make("AutoencoderKLWan", **VIDEO)
    first, again, other = (encode_images(vae, images, sample=True, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.testing.assert_close(encode_images(vae, images[1:], sample=True)[0], first[1])
    draws = (first - encode_images(vae, images)).flatten(1)
    assert torch.corrcoef(draws)[0, 1].abs() < 0.5


def test_a_module_says_where_it_computes() -> None:
    assert execution_place(nn.Linear(2, 2).to(torch.bfloat16))[1] == torch.bfloat16
