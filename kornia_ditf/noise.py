"""Noise schedules, and noise draws that depend on the image alone.

Time is the paper's timestep t in [0, 1000] everywhere: 0 is clean, 1000 is pure noise.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.checks import check_timestep


class NoiseSchedule(ABC):
    """How a family mixes a clean latent with noise at a timestep."""

    def check(self, timestep: float) -> None:
        """Raise InvalidArgumentError unless the model was trained at this timestep."""
        check_timestep(timestep)

    @abstractmethod
    def weights(self, timestep: float) -> tuple[float, float]:
        """Return the factors of the clean latent and of the noise at a timestep."""

    def mix(self, latent: Tensor, noise: Tensor, timestep: float) -> Tensor:
        """Mix a clean latent with noise.

        Args:
            latent: the clean latent, shape (B, C, h, w).
            noise: standard normal noise that broadcasts to the latent's shape.
            timestep: the paper's timestep in [0, 1000].

        Returns:
            the noisy latent, float32.

        Raises:
            InvalidArgumentError: the timestep is out of the schedule's range.
        """
        self.check(timestep)
        signal, spread = self.weights(timestep)
        return signal * latent.float() + spread * noise.to(latent.device, torch.float32)


class RectifiedFlow(NoiseSchedule):
    """The straight path of SD3 and FLUX: s * noise + (1 - s) * latent with s = t / 1000.

    Example:
        >>> RectifiedFlow().mix(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 250).item()
        0.75
    """

    def weights(self, timestep: float) -> tuple[float, float]:
        return 1 - timestep / 1000, timestep / 1000


class VariancePreserving(NoiseSchedule):
    """The DDPM path of DiT and PixArt: sqrt(a) * latent + sqrt(1 - a) * noise.

    Args:
        alphas_cumprod: a at every integer timestep, shape (T,).

    Raises:
        InvalidArgumentError: it is not a sequence of numbers in [0, 1].
    """

    def __init__(self, alphas_cumprod: Tensor) -> None:
        self.alphas_cumprod = alphas_cumprod.double().cpu()
        usable = ((self.alphas_cumprod >= 0) & (self.alphas_cumprod <= 1)).all()
        if alphas_cumprod.ndim != 1 or not usable:
            raise InvalidArgumentError("alphas_cumprod must be a sequence of numbers in [0, 1]")

    @classmethod
    def from_scheduler_config(cls, config: Mapping[str, Any]) -> VariancePreserving:
        """Read the betas of a model's own scheduler_config.json, whatever its sampler."""
        import diffusers

        betas = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
        names = [*betas, "rescale_betas_zero_snr"]
        schedulers: Any = diffusers  # which carry no types
        known = {name: config[name] for name in names if name in config}
        return cls(schedulers.DDPMScheduler(**known).alphas_cumprod)

    def check(self, timestep: float) -> None:
        super().check(timestep)
        last = len(self.alphas_cumprod) - 1
        if timestep != int(timestep) or timestep > last:
            raise InvalidArgumentError(
                f"this model's noise schedule has integer timesteps from 0 to {last}, "
                f"got {timestep}"
            )

    def weights(self, timestep: float) -> tuple[float, float]:
        alpha = float(self.alphas_cumprod.numpy()[int(timestep)])
        return alpha**0.5, (1 - alpha) ** 0.5


def draw_noise(shape: Sequence[int], *, seed: int) -> Tensor:
    """Draw standard normal noise that is the same on every device.

    Rows are drawn one after another, so a larger ensemble begins with a smaller one's draws.

    Args:
        shape: (ensemble, C, h, w).
        seed: any integer that torch takes as a seed.

    Returns:
        noise of that shape, float32, on the CPU.
    """
    # A CUDA generator with the same seed yields other numbers, so noise is drawn on the CPU.
    generator = torch.Generator("cpu").manual_seed(seed)
    rows = torch.empty(tuple(shape), dtype=torch.float32, device="cpu")
    for row in rows:
        row.normal_(generator=generator)
    return rows


def draw_image_noise(
    images: Tensor, shape: Sequence[int], *, seed: int, purpose: str = "noise"
) -> Tensor:
    """Draw noise for each image, seeded by the image itself.

    A draw that several images share is matched in place of their content. Here it depends on the
    image alone: it is the same in any batch and any order, and independent of other images' noise.

    Args:
        images: the images as the model sees them, shape (B, 3, H, W) in [0, 1].
        shape: (ensemble, C, h, w), the draws of one image.
        seed: combined with every image's own.
        purpose: separates draws for different uses of the same image.

    Returns:
        noise (B, ensemble, C, h, w), float32, on the CPU.

    Example:
        >>> one, other = torch.rand(2, 1, 3, 8, 8)
        >>> noise = draw_image_noise(torch.cat([one, other]), (1, 4, 2, 2), seed=0)
        >>> bool((noise[1] == draw_image_noise(other, (1, 4, 2, 2), seed=0)).all())
        True
    """
    # Rounded to 8 bits, as image files are: float arithmetic differs between devices.
    levels = (images.detach().float() * 255).round().clamp(0, 255).to("cpu", torch.uint8)
    seeds = [_image_seed(image, f"{purpose} {seed}") for image in levels]
    return torch.stack([draw_noise(shape, seed=own) for own in seeds])


def exact_pixels(images: Tensor) -> Tensor:
    """Return images in float32 on the CPU, so that their hash depends on no device or dtype.

    Half precision rounds the levels of an 8-bit image; they are restored. What is in float32 on
    the CPU already comes back as it is.
    """
    if images.dtype in (torch.float16, torch.bfloat16):
        return (images.detach().cpu().float() * 255).round() / 255
    if images.dtype == torch.float32 and images.device.type == "cpu":
        return images
    return images.detach().cpu().float()


def _image_seed(image: Tensor, salt: str) -> int:
    digest = hashlib.blake2b(f"{salt} {tuple(image.shape)}".encode(), digest_size=8)
    digest.update(image.contiguous().numpy().data)
    return int.from_bytes(digest.digest(), "big", signed=True)
