"""FLUX.2: one modulation for all double-stream blocks, and one for all single-stream blocks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.flux import GuidedBackbone, flux_streams
from kornia_ditf.backbones.inputs import grid_positions
from kornia_ditf.tap import ArgumentModulation


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
    default_guidance = 4.0

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        cells, words = four_axes(latent, inputs["encoder_hidden_states"].shape[1])
        return {**super().further_inputs(latent, inputs), "img_ids": cells, "txt_ids": words}


def four_axes(latent: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the positions (N, 4) of an image's tokens, and of words along the last axis."""
    cells = grid_positions(latent.shape[2], latent.shape[3], device=latent.device)
    words = torch.zeros(length, 4, device=latent.device)
    words[:, 3] = torch.arange(length)
    return F.pad(cells, (0, 1)), words


class Flux2KleinBackbone(Flux2Backbone):
    """FLUX.2 [klein]: smaller, with another text encoder and no guidance embedding."""

    pipeline_class = "Flux2KleinPipeline"
