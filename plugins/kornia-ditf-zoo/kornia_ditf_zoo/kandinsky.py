"""Kandinsky 5 for images: text through cross-attention, a modulation of nine parts."""

from __future__ import annotations

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf_zoo.family import QuietBackbone, without_reference


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
    prompt_length = 512
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    }

    @property
    def latent_channels(self) -> int:
        return int(self.config.in_visual_dim)

    @property
    def max_cells(self) -> int:
        return 128 * self.patch_size  # of the rotary embedding, which is not configured

    def arrange(self, latent: Tensor) -> Tensor:
        return without_reference(latent) if self.config.visual_cond else latent

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        words = inputs["encoder_hidden_states"].shape[1]
        sides = (1, *self.token_grid(latent))
        return {
            "hidden_states": inputs["hidden_states"].permute(0, 2, 3, 1).unsqueeze(1),
            "visual_rope_pos": [torch.arange(side, device=latent.device) for side in sides],
            "text_rope_pos": torch.arange(words, device=latent.device),
        }
