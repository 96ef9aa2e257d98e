"""LTX-Video: a video model on one frame, with 32 x 32 pixels in a token.

RMS norm without gain, scale and shift: `adaln` is (1 + scale) * x / rms(x) + shift. The mean over
the channels is not subtracted, in `discard+layernorm` neither, which is the plain RMS norm here.
"""

from __future__ import annotations

from torch import Tensor

from kornia_ditf.backbones.declared import MASKED_TEXT, Inputs
from kornia_ditf.backbones.video import VideoBackbone, as_clip
from kornia_ditf.tap import BlockStream, TableModulation
from kornia_ditf.types import Conditioning

_FRAMES_PER_SECOND = 25  # the pipeline's own; positions are seconds and pixels


class LTXBackbone(VideoBackbone):
    """LTX-Video."""

    transformer_class = "LTXVideoTransformer3DModel"
    pipeline_class = "LTXPipeline"
    vae_class = "AutoencoderKLLTXVideo"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1",
            attention="attn1",
            modulation=TableModulation("temb"),
        ),
    )
    time = "t"
    prompt_inputs = MASKED_TEXT
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")

    def arrange(self, latent: Tensor) -> Tensor:
        return as_clip(latent).flatten(2).transpose(1, 2)

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        seconds = self.frames_per_latent / _FRAMES_PER_SECOND
        return {
            **super().transformer_inputs(latent, timestep, conditioning),
            "num_frames": as_clip(latent).shape[2],
            "height": latent.shape[-2],
            "width": latent.shape[-1],
            "rope_interpolation_scale": (seconds, self.pixels_per_cell, self.pixels_per_cell),
        }


SPECS = (
    LTXBackbone.spec(
        name="ltx-video",
        repo="Lightricks/LTX-Video",
        blocks=28,
        width=2048,
        pixels_per_token=32,
        long_side=704,
        license="see its publisher",
    ),
)
