"""Video models: an image is a clip of one frame, and frames follow one another in the stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.types import Tap


class VideoBackbone(DiffusersBackbone):
    """A video transformer, which works on the latents of clips.

    Latents are (B, C, h, w) for images or (B, C, F, h, w) for clips, whose tokens stand frame by
    frame in a tap: its grid has F times as many rows (`split_frames` takes them apart).
    """

    frame_axis: ClassVar[int] = 2
    """Axis of the frames in the latent that the transformer takes."""

    @property
    def frames_per_latent(self) -> int:
        """Frames that one latent frame covers; the first latent frame covers the first alone."""
        vae: Any = self.vae
        for name in ("temporal_compression_ratio", "scale_factor_temporal"):
            if value := vars(vae).get(name) or getattr(vae.config, name, None):
                return int(value)
        return 4

    @property
    def latents_per_token(self) -> int:
        """Latent frames that one token covers, which share its features."""
        return 1

    def arrange(self, latent: Tensor) -> Tensor:
        return as_clip(latent).movedim(2, self.frame_axis)

    def token_grid(self, latent: Tensor) -> tuple[int, int]:
        if latent.ndim != 5:
            return super().token_grid(latent)
        rows, columns = super().token_grid(latent[:, :, 0])
        return latent.shape[2] * rows, columns


def as_clip(latent: Tensor) -> Tensor:
    """Add an axis of one frame to the latent of an image, (B, C, h, w); clips are unchanged."""
    return latent if latent.ndim == 5 else latent.unsqueeze(2)


def split_frames(tap: Tap, frames: int) -> Tap:
    """Split clips into frames: a tap of B clips becomes one of B * F images."""
    tokens, width = tap.x.shape[1:]

    def split(value: Tensor | None) -> Tensor | None:
        if value is None:
            return None
        if value.ndim == 3 and value.shape[1] == tokens:  # its own for every token
            return value.reshape(-1, tokens // frames, width)
        return value.repeat_interleave(frames, 0)

    return replace(
        tap,
        x=tap.x.reshape(-1, tokens // frames, width),
        shift=split(tap.shift),
        scale=split(tap.scale),
        grid=(tap.grid[0] // frames, tap.grid[1]),
    )
