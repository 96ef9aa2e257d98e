"""Lumina-Next: RMS norm, a scale without shift, cross-attention, and time that runs backwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf import BackboneSpec, Conditioning, DiffusersBackbone
from kornia_ditf.noise import RectifiedFlow
from kornia_ditf.tap import BlockStream, LinearModulation


class LuminaNextBackbone(DiffusersBackbone):
    """Lumina-Next in the layout of its diffusers repository."""

    transformer_class = "LuminaNextDiT2DModel"
    pipeline_class = "LuminaPipeline"
    width_from = ("hidden_size",)
    streams = (
        BlockStream(
            blocks="layers",
            norm="norm1.norm",
            attention="attn1",
            # Chunks: scale and gate of the attention, scale and gate of the feed-forward.
            modulation=LinearModulation("norm1.linear", shift=None, scale=0),
        ),
    )
    head = ("norm_out",)
    schedule = RectifiedFlow()

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        return {
            "hidden_states": latent,
            # Lumina counts from noise to image: 0 is noise, 1 is clean.
            "timestep": latent.new_full((len(latent),), 1 - timestep / 1000, dtype=torch.float32),
            "encoder_hidden_states": conditioning["prompt_embeds"],
            "encoder_mask": conditioning["prompt_mask"],
            "image_rotary_emb": self._positions(latent),
            "cross_attention_kwargs": {},
        }

    def _positions(self, latent: Tensor) -> Tensor:
        from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

        height, width = latent.shape[2:]
        # As in the pipeline: positions are stretched to the resolution of the training.
        stretch = math.sqrt(height * width) / self.config.sample_size
        positions: Tensor = get_2d_rotary_pos_embed_lumina(
            self.width // self.config.num_attention_heads,
            height // self.patch_size,
            width // self.patch_size,
            linear_factor=stretch,
        )
        return positions.to(latent.device)

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, mask, *_ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        # All of one length, so that the rows of several prompts can be joined; the rest is masked.
        missing = pipeline.max_sequence_length - text.shape[1]
        return {
            "prompt_embeds": F.pad(text, (0, 0, 0, missing)),
            "prompt_mask": F.pad(mask, (0, missing)),
        }


LUMINA_NEXT = BackboneSpec.uncalibrated(
    name="lumina-next-sft",
    repo="Alpha-VLLM/Lumina-Next-SFT-diffusers",
    pipeline="LuminaPipeline",
    load=LuminaNextBackbone.from_pretrained,
    plan=LuminaNextBackbone.plan_loading,
    blocks=24,
    width=2304,
    width_from=LuminaNextBackbone.width_from,
    pixels_per_token=16,
    long_side=1024,
    license="Apache-2.0",
)
