"""FLUX.2: one modulation for all double-stream blocks, and one for all single-stream blocks.

LayerNorm without gain, scale and shift: `adaln` is the paper's. That the blocks of a list share
their modulation does not change it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.flux import GuidedBackbone, flux_streams
from kornia_ditf.backbones.inputs import grid_positions
from kornia_ditf.tap import ArgumentModulation
from kornia_ditf.types import Conditioning


class Flux2Backbone(GuidedBackbone):
    """FLUX.2 [dev]; its latents come packed from the VAE, which normalises them so."""

    transformer_class = "Flux2Transformer2DModel"
    pipeline_class = "Flux2Pipeline"
    vae_class = "AutoencoderKLFlux2"
    streams = flux_streams(
        ArgumentModulation("temb_mod_img"), ArgumentModulation("temb_mod"), norms=("norm1", "norm")
    )
    packed = 1
    prompt_outputs = ("prompt_embeds",)
    prompt_options = {}
    default_guidance = 4.0

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        length = conditioning["prompt_embeds"].shape[1]
        places = grid_positions(latent.shape[2], latent.shape[3], device=latent.device)
        words = torch.zeros(length, 4, device=latent.device)
        words[:, 3] = torch.arange(length)
        return {
            **super().transformer_inputs(latent, timestep, conditioning),
            "img_ids": functional.pad(places, (0, 1)),
            "txt_ids": words,
        }


class Flux2KleinBackbone(Flux2Backbone):
    """FLUX.2 [klein]: smaller, with another text encoder and no guidance embedding."""

    pipeline_class = "Flux2KleinPipeline"
