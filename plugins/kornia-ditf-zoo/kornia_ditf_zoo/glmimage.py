"""GLM-Image: CogView4's blocks; text and glyphs, and no draft of the image."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf_zoo.cogview import CogView4Backbone


class GlmImageBackbone(CogView4Backbone):
    """GLM-Image's decoder, told that its draft of the image is left out.

    To make an image, a language model first writes a draft in tokens, which the transformer adds
    to the image's. An image that is described has none; the transformer knows this case, from
    the unconditional half of its guidance. Of a prompt it reads the quoted texts alone.
    """

    transformer_class = "GlmImageTransformer2DModel"
    pipeline_class = "GlmImagePipeline"
    unused_parts = ("processor", "vision_language_encoder")
    prompt_length = 512

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        sizes = super().further_inputs(latent, inputs)
        draft = latent.new_zeros(len(latent), prod(self.token_grid(latent)), dtype=torch.long)
        return {
            "target_size": sizes["target_size"],
            "crop_coords": sizes["crop_coords"],
            "timestep": inputs["timestep"] - 1,
            "prior_token_id": draft,
            "prior_token_drop": torch.ones_like(draft, dtype=torch.bool),
        }
