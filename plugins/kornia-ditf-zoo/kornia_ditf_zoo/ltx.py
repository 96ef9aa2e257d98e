"""LTX-Video: a video model on one frame, with 32 x 32 pixels in a token.

RMS norm without gain, scale and shift: `adaln` is (1 + scale) * x / rms(x) + shift. The mean over
the channels is not subtracted, in `discard+layernorm` neither, which is the plain RMS norm here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.inputs import full_batch, pack
from kornia_ditf.tap import BlockStream, TableModulation
from kornia_ditf.types import Conditioning

_FRAMES_PER_SECOND = 25  # the pipeline's own; positions are seconds and pixels


class LTXBackbone(DiffusersBackbone):
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
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        vae: Any = self.vae
        frames = 8 if vae is None else vae.temporal_compression_ratio
        return {
            "hidden_states": pack(latent, 1),
            "encoder_hidden_states": conditioning["prompt_embeds"],
            "timestep": full_batch(latent, timestep),
            "encoder_attention_mask": conditioning["prompt_attention_mask"],
            "num_frames": 1,
            "height": latent.shape[2],
            "width": latent.shape[3],
            "rope_interpolation_scale": (
                frames / _FRAMES_PER_SECOND,
                self.pixels_per_cell,
                self.pixels_per_cell,
            ),
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
