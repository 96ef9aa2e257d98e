"""LTX-Video and LTX-2: video models on one frame, with 32 x 32 pixels in a token.

RMS norm without gain, scale and shift: `adaln` is (1 + scale) * x / rms(x) + shift. The mean over
the channels is not subtracted, in `discard+layernorm` neither, which is the plain RMS norm here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from kornia_ditf.backbones.declared import MASKED_TEXT, Inputs
from kornia_ditf.backbones.video import VideoBackbone, as_clip
from kornia_ditf.tap import ADALN_SINGLE, TableModulation

# The pipelines' own; positions are seconds and pixels.
_FRAMES_PER_SECOND = 25
_FRAMES_PER_SECOND_2 = 24.0


class LTXBackbone(VideoBackbone):
    """LTX-Video."""

    transformer_class = "LTXVideoTransformer3DModel"
    pipeline_class = "LTXPipeline"
    vae_class = "AutoencoderKLLTXVideo"
    streams = (replace(ADALN_SINGLE, modulation=TableModulation("temb")),)
    time = "t"
    prompt_inputs = MASKED_TEXT
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")

    def arrange(self, latent: Tensor) -> Tensor:
        return as_clip(latent).flatten(2).transpose(1, 2)

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        seconds = self.frames_per_latent / _FRAMES_PER_SECOND
        return {
            "num_frames": as_clip(latent).shape[2],
            "height": latent.shape[-2],
            "width": latent.shape[-1],
            "rope_interpolation_scale": (seconds, self.pixels_per_cell, self.pixels_per_cell),
        }


class LTX2Backbone(LTXBackbone):
    """LTX-2 without sound: what the blocks share with their audio stream is turned off.

    The forward does so itself, for the part of the pipeline's guidance that sets the two apart.
    The audio stream it still runs gets one token of silence and of text.
    """

    transformer_class = "LTX2VideoTransformer3DModel"
    pipeline_class = "LTX2Pipeline"
    vae_class = "AutoencoderKLLTX2Video"
    head = ("norm_out", "proj_out", "audio_norm_out", "audio_proj_out")
    unused_parts = ("audio_vae", "vocoder", "processor", "prompt_enhancer", "duration_head")

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        sides = dict(super().further_inputs(latent, inputs))
        del sides["rope_interpolation_scale"]
        config = self.config
        words = config.audio_cross_attention_dim
        if config.use_prompt_embeddings:
            words = config.caption_channels
        return {
            **sides,
            "sigma": inputs["timestep"],
            "fps": _FRAMES_PER_SECOND_2,
            "isolate_modalities": True,
            "audio_hidden_states": latent.new_zeros(len(latent), 1, int(config.audio_in_channels)),
            "audio_encoder_hidden_states": latent.new_zeros(len(latent), 1, int(words)),
            "audio_num_frames": 1,
        }

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        text, mask, _, _ = pipeline.encode_prompt([prompt], do_classifier_free_guidance=False)
        side = getattr(pipeline.tokenizer, "padding_side", "left")
        text, _, mask = pipeline.connectors(text, mask, padding_side=side)
        return {"prompt_embeds": text, "prompt_attention_mask": mask}
