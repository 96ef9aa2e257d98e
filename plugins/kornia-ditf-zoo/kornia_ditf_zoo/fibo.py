"""Bria FIBO: FLUX's blocks, each told a layer of the text encoder of its own; and FIBO 2.

FIBO 2 has Z-Image's blocks: RMS norms with gain, a scale and no shift.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.flux import FluxLikeBackbone
from kornia_ditf.backbones.inputs import pad_prompt
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf_zoo.family import ProcessorBackbone
from kornia_ditf_zoo.fluxlike import say_dtype
from kornia_ditf_zoo.zimage import Z_IMAGE_BLOCKS


class BriaFiboBackbone(TrimmedPromptBackbone, FluxLikeBackbone):
    """FIBO, on 16-fold compressed latents; it was trained on prompts in JSON."""

    transformer_class = "BriaFiboTransformer2DModel"
    pipeline_class = "BriaFiboPipeline"
    vae_class = "AutoencoderKLWan"
    head = ("norm_out", "proj_out")
    packed = 1
    time = "t"
    prompt_length = 512
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "text_encoder_layers": "prompt_layers",
    }
    padded = ("prompt_embeds", "prompt_layers", "prompt_attention_mask")

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        layers = inputs["text_encoder_layers"].unbind(2)[-self.blocks :]
        # The last blocks share the encoder's last layer, where it has fewer than they are.
        missing = self.blocks - len(layers)
        return {
            **super().further_inputs(latent, inputs),
            "text_encoder_layers": [*layers, *[layers[-1]] * missing],
        }

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        say_dtype(pipeline)
        text, _, _, _, _, found, _ = pipeline.encode_prompt([prompt], guidance_scale=1)
        layers = torch.stack(found, 2)
        padded = pad_prompt({"prompt_embeds": layers.flatten(2)}, cls.prompt_length)
        return {
            "prompt_layers": padded["prompt_embeds"].reshape(1, -1, *layers.shape[2:]),
            **pad_prompt({"prompt_embeds": text}, cls.prompt_length),
        }


class BriaFibo2Backbone(ProcessorBackbone, TrimmedPromptBackbone):
    """FIBO 2, without images to edit; its text is condensed into tokens that precede the image's.

    Its latents are packed, since it is the packed ones that its VAE normalises.
    """

    needs = "diffusers>=0.42"
    transformer_class = "BriaFibo2Transformer2DModel"
    pipeline_class = "BriaFibo2Pipeline"
    vae_class = "AutoencoderKLFlux2"
    blocks_from = ("n_layers",)
    width_from = ("dim",)
    # The modulation is called for what is noisy first, and then again for what is not.
    streams = (replace(Z_IMAGE_BLOCKS, tokens="last"),)
    head = ("final_layer",)
    positions_from = "axes_lens"
    prompt_length = 512

    @property
    def patch_size(self) -> int:
        return 1

    @property
    def latent_channels(self) -> int:
        return int(self.config.in_channels) * int(self.config.patch_size) ** 2

    def arrange(self, latent: Tensor) -> Tensor:
        return F.pixel_shuffle(latent, int(self.config.patch_size))

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        bundles = 1 + len(self.config.injection_layer_ids)
        text = inputs["encoder_hidden_states"].unflatten(2, (bundles, -1)).transpose(1, 2)
        return {"encoder_hidden_states": text}

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        caption, _ = pipeline._parse_prompt(prompt)
        if not isinstance(caption, str):  # of a prompt in JSON, as the pipeline's call writes it
            prompt = json.dumps(caption or {}, separators=(",", ":"), ensure_ascii=False)
        text, _ = pipeline.encode_prompt([prompt])
        return pad_prompt({"prompt_embeds": text.transpose(1, 2).flatten(2)}, cls.prompt_length)
