"""FLUX.3: blocks for the image alone, then blocks on text and image; a modulation per token.

Both lists share one modulation among their blocks, and all tokens of the image have the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.inputs import pad_prompt
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import ArgumentModulation, BlockStream
from kornia_ditf_zoo.family import read_text_encoder, text_processor
from kornia_ditf_zoo.flux2 import four_axes

_ROPE_SCALE = 0.5  # of the image's rows and columns, as in training
_IMAGE = BlockStream(
    blocks="mode_blocks.image",
    norm="norm",  # which the second list calls for the image's tokens, then for the text's
    attention="attn",
    modulation=ArgumentModulation("temb_mod"),
)


class Flux3Backbone(TrimmedPromptBackbone):
    """FLUX.3 without a reference image, and its distilled model, told the same time twice."""

    needs = "diffusers>=0.42"
    transformer_class = "Flux3Transformer2DModel"
    pipeline_class = "Flux3ModularPipeline"
    vae_class = "AutoencoderKLFlux2"
    streams = (_IMAGE, replace(_IMAGE, blocks="single_transformer_blocks", tokens="last"))
    head = ("norm_out", "proj_out", "mode_blocks.image_cond")
    packed = 1
    prompt_length = 800  # a multiple of the 80 tokens by which the windows of prompts grow

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        cells, words = four_axes(latent, inputs["encoder_hidden_states"].shape[1])
        return {
            "img_ids": _ROPE_SCALE * cells,
            "txt_ids": words,
            # The distilled model is told where a step would end: here, where it is.
            "target_timestep": inputs["timestep"] if self.config.flow_map else None,
        }

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "text_encoder": read_text_encoder(checkpoint, dtype),
            "tokenizer": text_processor(checkpoint, "tokenizer"),
        }

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        from diffusers.modular_pipelines.flux3.encoders import Flux3TextEncoderStep

        encode = Flux3TextEncoderStep._get_qwen3_vl_prompt_embeds
        text = encode(pipeline.text_encoder, pipeline.tokenizer, prompt)
        return pad_prompt({"prompt_embeds": text}, cls.prompt_length)
