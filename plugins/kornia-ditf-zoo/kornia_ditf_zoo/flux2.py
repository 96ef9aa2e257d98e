"""FLUX.2: one modulation for all double-stream blocks, and one for all single-stream blocks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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
        inputs = super().transformer_inputs(latent, timestep, conditioning)
        cells, words = four_axes(latent, conditioning["prompt_embeds"].shape[1])
        return {**inputs, "img_ids": cells, "txt_ids": words}


def four_axes(latent: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the positions (N, 4) of an image's tokens, and of words along the last axis."""
    cells = grid_positions(latent.shape[2], latent.shape[3], device=latent.device)
    words = torch.zeros(length, 4, device=latent.device)
    words[:, 3] = torch.arange(length)
    return F.pad(cells, (0, 1)), words


class Flux2KleinBackbone(Flux2Backbone):
    """FLUX.2 [klein]: smaller, with another text encoder and no guidance embedding."""

    pipeline_class = "Flux2KleinPipeline"
