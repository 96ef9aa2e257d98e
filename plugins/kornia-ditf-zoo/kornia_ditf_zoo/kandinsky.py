"""Kandinsky 5 for images: text through cross-attention, a modulation of nine parts.

LayerNorm without gain, scale and shift in float32: `adaln` is the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning
from kornia_ditf_zoo.family import QuietBackbone


class Kandinsky5Backbone(QuietBackbone, TrimmedPromptBackbone):
    """Kandinsky 5 text-to-image; its latents have their channels last."""

    transformer_class = "Kandinsky5Transformer3DModel"
    pipeline_class = "Kandinsky5T2IPipeline"
    blocks_from = ("num_visual_blocks",)
    width_from = ("model_dim",)
    streams = (
        BlockStream(
            blocks="visual_transformer_blocks",
            norm="self_attention_norm",
            attention="self_attention",
            modulation=LinearModulation("visual_modulation.out_layer"),
        ),
    )
    head = ("out_layer",)
    time = "t"
    # Its attention normalises float32 with weights of another dtype.
    ignored_warning = "Mismatch dtype between input and weight"
    prompt_outputs = ("prompt_embeds", "pooled_prompt_embeds")
    prompt_options = {}
    prompt_length = 512
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    }

    @property
    def patch_size(self) -> int:
        return int(self.config.patch_size[1])

    @property
    def latent_channels(self) -> int:
        return int(self.config.in_visual_dim)

    @property
    def max_cells(self) -> int:
        return 128 * self.patch_size  # of the rotary embedding, which is not configured

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        told = super().transformer_inputs(latent, timestep, conditioning)
        words = conditioning["prompt_embeds"].shape[1]
        sides = (1, *(side // self.patch_size for side in latent.shape[2:]))
        return {
            **told,
            # Some models of the family also take a reference image and its mask, here none.
            "hidden_states": self._with_reference(latent).permute(0, 2, 3, 1).unsqueeze(1),
            "visual_rope_pos": [torch.arange(side, device=latent.device) for side in sides],
            "text_rope_pos": torch.arange(words, device=latent.device),
        }

    def _with_reference(self, latent: Tensor) -> Tensor:
        if not self.config.visual_cond:
            return latent
        return torch.cat([latent, torch.zeros_like(latent), torch.zeros_like(latent[:, :1])], 1)
