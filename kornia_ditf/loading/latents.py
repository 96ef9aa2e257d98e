"""Latents of images, encoded by any VAE of diffusers as its transformer was trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.noise import draw_image_noise
from kornia_ditf.utils.borrowing import borrowed, execution_device
from kornia_ditf.utils.isolation import isolated


def encode_images(
    vae: Any,  # diffusers' models carry no types
    images: Tensor,
    *,
    sample: bool = False,
    seed: int = 0,
    patch_first: bool = False,
) -> Tensor:
    """Encode images, and shift and scale the latents as the family's pipeline does.

    A video VAE is given each image as one frame, and clips as they are. The VAE of FLUX.2 gives
    its latents packed, 2 x 2 cells in the channels, since it is the packed ones that it normalises.

    Args:
        vae: a diffusers VAE, whole or its encoder alone.
        images: shape (B, 3, H, W) in [0, 1]; or clips (B, 3, T, H, W), for video VAEs.
        sample: take a seeded sample of the posterior instead of its mode.
        seed: of that sample, combined with a hash of each image.
        patch_first: whether packed channels run cell by cell, as in Ideogram 4, and not channel
            by channel.

    Returns:
        latents (B, C, h, w), of clips (B, C, F, h, w), float32.

    Raises:
        InvalidArgumentError: a sample is wanted of a VAE that has no posterior.
    """
    device, dtype = execution_place(vae)
    pixels = (2 * images - 1).to(device, dtype)
    image_of_video = images.ndim == 4 and _takes_frames(vae)
    with isolated(vae), borrowed(vae):
        encoded = vae.encode(pixels.unsqueeze(2) if image_of_video else pixels)
    posterior = getattr(encoded, "latent_dist", None)
    if posterior is None:
        if sample:
            raise InvalidArgumentError(
                f"posterior='sample' needs a VAE with a posterior; {type(vae).__name__} has none"
            )
        latent: Tensor = encoded.latent
    else:
        latent = posterior.mode()
        if sample:
            shape = (1, *latent.shape[1:])
            draw = draw_image_noise(images, shape, seed=seed, purpose="posterior").squeeze(1)
            latent = posterior.mean + posterior.std * draw.to(latent)
    return _normalise(vae, (latent.squeeze(2) if image_of_video else latent).float(), patch_first)


def pixels_per_cell(vae: Any) -> int:
    """Return the side of the square of pixels that one cell of `encode_images`' latents covers."""
    config = vae.config
    # Read past diffusers' own look-up, which warns where the configuration alone has it.
    ratio = vars(vae).get("spatial_compression_ratio")
    ratio = ratio or getattr(config, "spatial_compression_ratio", None)
    return int(ratio or 1 << (len(config.block_out_channels) - 1)) * (2 if _is_packed(vae) else 1)


def latent_channels(vae: Any) -> int | None:
    """Return the channels of `encode_images`' latents; None where the configuration has none."""
    config = vae.config
    names = ("latent_channels", "z_dim")
    stored = next((n for name in names if (n := getattr(config, name, None))), None)
    return None if stored is None else int(stored) * (4 if _is_packed(vae) else 1)


def execution_place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Find where a module computes and in which dtype, offloaded or quantised modules included."""
    parameter = next(module.parameters())
    device = execution_device(module) or parameter.device
    return device, getattr(module, "dtype", None) or parameter.dtype


def _normalise(vae: Any, latent: Tensor, patch_first: bool) -> Tensor:
    config = vae.config
    if _is_packed(vae):
        norm = vae.bn
        mean, variance = _channels(norm.running_mean, latent), _channels(norm.running_var, latent)
        packed: Tensor = F.pixel_unshuffle(latent, 2)
        if patch_first:
            batch, channels, rows, columns = packed.shape
            cells = packed.reshape(batch, channels // 4, 4, rows, columns)
            packed = cells.transpose(1, 2).flatten(1, 2)
        return (packed - mean) / (variance + float(config.batch_norm_eps)).sqrt()
    stored = dict(vae.named_buffers())  # where LTX keeps what others have in their configuration
    names = ("latents_mean", "latents_std")
    means, stds = (stored.get(name, getattr(config, name, None)) for name in names)
    shifted: Tensor = latent - (getattr(config, "shift_factor", None) or 0.0)
    if means is not None and stds is not None:
        shifted = (shifted - _channels(means, latent)) / _channels(stds, latent)
    return shifted * float(getattr(config, "scaling_factor", None) or 1.0)


def _takes_frames(vae: Any) -> bool:
    layers = vae.encoder.modules()
    first = next(m for m in layers if isinstance(m, nn.Conv2d | nn.Conv3d))
    # Qwen-Image 2.1 names a convolution over frames so that is none inside.
    return isinstance(first, nn.Conv3d) or "3d" in type(first).__name__


def _is_packed(vae: nn.Module) -> bool:
    return isinstance(getattr(vae, "bn", None), nn.BatchNorm2d)


def _channels(values: Any, latent: Tensor) -> Tensor:
    # In the latents' dtype at once: torch's default one is the caller's.
    tensor = torch.as_tensor(values, dtype=latent.dtype, device=latent.device)
    return tensor.reshape(1, -1, *[1] * (latent.ndim - 2))
