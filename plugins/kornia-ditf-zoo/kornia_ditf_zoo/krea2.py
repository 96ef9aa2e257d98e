"""Krea 2: one stream of text and image, RMS norms whose gain is kept as its difference from 1.

`adaln` is (1 + scale) * gain * x / rms(x) + shift, by adaLN-single: the mean over the channels is
not subtracted. The norm's gain is the block's own; `discard+layernorm` is the norm with its gain.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kornia_ditf.backbones.declared import MASKED_TEXT, Inputs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.inputs import grid_positions
from kornia_ditf.tap import BlockStream, TableModulation


class Krea2Backbone(DiffusersBackbone):
    """Krea 2 Raw and Turbo; several layers of the text encoder for each word."""

    transformer_class = "Krea2Transformer2DModel"
    pipeline_class = "Krea2Pipeline"
    vae_class = "AutoencoderKLQwenImage"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1",
            attention="attn",
            modulation=TableModulation("temb", shift=1, scale=0),
            tokens="last",
            zero_centred=True,
        ),
    )
    head = ("final_layer",)
    packed = 2
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")
    prompt_inputs = MASKED_TEXT

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        words = inputs["encoder_hidden_states"].shape[1]
        places = grid_positions(*self.token_grid(latent), device=latent.device)
        return {"position_ids": F.pad(places, (0, 0, words, 0))}
