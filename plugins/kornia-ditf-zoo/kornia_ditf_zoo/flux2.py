"""FLUX.2: one modulation for all double-stream blocks, and one for all single-stream blocks.

LayerNorm without gain, scale and shift: `adaln` is the paper's. That the blocks of a list share
their modulation does not change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from kornia_ditf.backbones.flux import GuidedBackbone, flux_streams
from kornia_ditf.backbones.inputs import full_batch, grid_positions, pack
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
    prompt_outputs = ("prompt_embeds",)
    prompt_options: ClassVar[Mapping[str, Any]] = {}
    default_guidance = 4.0

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        text = conditioning["prompt_embeds"]
        places = grid_positions(latent.shape[2], latent.shape[3], device=latent.device)
        words = torch.zeros(text.shape[1], 4, device=latent.device)
        words[:, 3] = torch.arange(text.shape[1])
        return {
            "hidden_states": pack(latent, 1),
            "encoder_hidden_states": text,
            "timestep": full_batch(latent, timestep / 1000),
            "img_ids": functional.pad(places, (0, 1)),
            "txt_ids": words,
            "guidance": self.guidance_of(latent),
        }


class Flux2KleinBackbone(Flux2Backbone):
    """FLUX.2 [klein]: smaller, with another text encoder and no guidance embedding."""

    pipeline_class = "Flux2KleinPipeline"


SPECS = (
    Flux2Backbone.spec(
        name="flux.2-dev",
        repo="black-forest-labs/FLUX.2-dev",
        blocks=56,
        width=6144,
        long_side=1024,
        license="FLUX [dev] Non-Commercial License",
    ),
    Flux2KleinBackbone.spec(
        name="flux.2-klein-4b",
        repo="black-forest-labs/FLUX.2-klein-4B",
        blocks=25,
        width=3072,
        long_side=1024,
        license="Apache-2.0",
    ),
    Flux2KleinBackbone.spec(
        name="flux.2-klein-9b",
        repo="black-forest-labs/FLUX.2-klein-9B",
        blocks=32,
        width=4096,
        long_side=1024,
        license="see its publisher",
    ),
)
