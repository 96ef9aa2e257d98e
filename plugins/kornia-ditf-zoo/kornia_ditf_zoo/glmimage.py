"""GLM-Image: text and glyphs in a stream of their own; no draft of the image.

LayerNorm without gain, scale and shift: `adaln` is the paper's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning


class GlmImageBackbone(TrimmedPromptBackbone):
    """GLM-Image's decoder, told that its draft of the image is left out.

    To make an image, a language model first writes a draft in tokens, which the transformer adds
    to the image's. An image that is described has none; the transformer knows this case, from
    the unconditional half of its guidance. Of a prompt it reads the quoted texts alone.
    """

    transformer_class = "GlmImageTransformer2DModel"
    pipeline_class = "GlmImagePipeline"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1.norm",
            attention="attn1",
            # The text's stand in between.
            modulation=LinearModulation("norm1.linear", scale=2, gates=(4, 10)),
        ),
    )
    time = "t"
    prompt_outputs = ("prompt_embeds",)
    prompt_length = 512

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        told = super().transformer_inputs(latent, timestep, conditioning)
        cells = latent.shape[2] * latent.shape[3]
        draft = latent.new_zeros(len(latent), cells // self.patch_size**2, dtype=torch.long)
        pixels = [float(side * self.pixels_per_cell) for side in latent.shape[2:]]
        size = latent.new_tensor(pixels).repeat(len(latent), 1)
        return {
            **told,
            "timestep": told["timestep"] - 1,
            "prior_token_id": draft,
            "prior_token_drop": torch.ones_like(draft, dtype=torch.bool),
            "target_size": size,
            "crop_coords": 0 * size,
        }

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        unused = {"processor": None, "vision_language_encoder": None}
        return {**super().pipeline_modules(checkpoint, dtype), **unused}
