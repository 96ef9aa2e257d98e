"""Bria FIBO: FLUX's blocks, each told a layer of the text encoder of its own.

LayerNorm without gain, scale and shift: `adaln` is the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.flux import FluxLikeBackbone
from kornia_ditf.backbones.inputs import pad_prompt
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.types import Conditioning


class BriaFiboBackbone(TrimmedPromptBackbone, FluxLikeBackbone):
    """FIBO, on 16-fold compressed latents; it was trained on prompts in JSON."""

    transformer_class = "BriaFiboTransformer2DModel"
    pipeline_class = "BriaFiboPipeline"
    vae_class = "AutoencoderKLWan"
    head = ("norm_out", "proj_out")
    packed = 1
    time = "t"
    prompt_length = 512
    padded = ("prompt_embeds", "prompt_layers", "prompt_attention_mask")

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        told = super().transformer_inputs(latent, timestep, conditioning)
        layers = conditioning["prompt_layers"].unbind(2)[-self.blocks :]
        # The last blocks share the encoder's last layer, where it has fewer than they are.
        missing = self.blocks - len(layers)
        return {**told, "text_encoder_layers": [*layers, *[layers[-1]] * missing]}

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        if pipeline.transformer is None:  # whose dtype it asks for
            pipeline.transformer = SimpleNamespace(dtype=pipeline.text_encoder.dtype)
        rows = [cls._encode_layers(pipeline, prompt) for prompt in prompts]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    @classmethod
    def _encode_layers(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        text, _, _, _, _, found, _ = pipeline.encode_prompt([prompt], guidance_scale=1)
        layers = torch.stack(found, 2)
        padded = pad_prompt({"prompt_embeds": layers.flatten(2)}, cls.prompt_length)
        return {
            "prompt_layers": padded["prompt_embeds"].reshape(1, -1, *layers.shape[2:]),
            **pad_prompt({"prompt_embeds": text}, cls.prompt_length),
        }


SPECS = (
    BriaFiboBackbone.spec(
        name="bria-fibo",
        repo="briaai/FIBO",
        blocks=46,
        width=3072,
        license="see its publisher",
    ),
)
