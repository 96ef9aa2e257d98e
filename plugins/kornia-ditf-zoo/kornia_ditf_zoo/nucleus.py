"""Nucleus-Image: a mixture of experts whose attention reads the text besides.

LayerNorm without gain, a scale and no shift: `adaln` is (1 + scale) * norm(x).
"""

from __future__ import annotations

from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf_zoo.family import ProcessorBackbone


class NucleusImageBackbone(ProcessorBackbone, TrimmedPromptBackbone):
    """NucleusMoE-Image."""

    transformer_class = "NucleusMoEImageTransformer2DModel"
    pipeline_class = "NucleusMoEImagePipeline"
    vae_class = "AutoencoderKLQwenImage"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="pre_attn_norm",
            attention="attn",
            modulation=LinearModulation("img_mod.1", shift=None, scale=0, gates=(1, 3)),
        ),
    )
    packed = 2
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")
    prompt_options = {"max_sequence_length": 1024}
    prompt_length = 1024

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        return {"img_shapes": [(1, *self.token_grid(latent))] * len(latent)}
