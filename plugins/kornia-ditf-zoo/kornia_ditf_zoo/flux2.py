"""FLUX.2: one modulation for all double-stream blocks, and one for all single-stream blocks.

LayerNorm without gain, scale and shift: `adaln` is the paper's. That the blocks of a list share
their modulation does not change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.tap import ArgumentModulation, BlockStream
from kornia_ditf.types import Conditioning
from kornia_ditf_zoo.family import describe, every_row, pack, positions


class Flux2Backbone(DiffusersBackbone):
    """FLUX.2 [dev]; its latents come packed from the VAE, which normalises them so.

    Args:
        transformer: a Flux2Transformer2DModel.
        vae: its AutoencoderKLFlux2, or the encoder alone.
        guidance: the distilled guidance scale; ignored by klein, which has none.
        options: see `DiffusersBackbone`.
    """

    transformer_class = "Flux2Transformer2DModel"
    pipeline_class = "Flux2Pipeline"
    vae_class = "AutoencoderKLFlux2"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1",
            attention="attn",
            modulation=ArgumentModulation("temb_mod_img"),
        ),
        BlockStream(
            blocks="single_transformer_blocks",
            norm="norm",
            attention="attn",
            modulation=ArgumentModulation("temb_mod"),
            tokens="last",
        ),
    )
    head = ("norm_out", "proj_out")

    def __init__(
        self,
        transformer: nn.Module,
        vae: nn.Module | None = None,
        *,
        guidance: float = 4.0,
        **options: Any,
    ) -> None:
        super().__init__(transformer, vae, **options)
        self.guidance = guidance

    def settings(self) -> str:
        return f"{super().settings()} guidance={self.guidance}"

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        text = conditioning["prompt_embeds"]
        places = positions(latent.shape[2], latent.shape[3], device=latent.device)
        words = torch.zeros(text.shape[1], 4, device=latent.device)
        words[:, 3] = torch.arange(text.shape[1])
        guided = self.config.guidance_embeds
        return {
            "hidden_states": pack(latent, 1),
            "encoder_hidden_states": text,
            "timestep": every_row(latent, timestep / 1000),
            "img_ids": nn.functional.pad(places, (0, 1)),
            "txt_ids": words,
            "guidance": every_row(latent, self.guidance) if guided else None,
        }

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, _ = pipeline.encode_prompt(list(prompts))
        return {"prompt_embeds": text}


class Flux2KleinBackbone(Flux2Backbone):
    """FLUX.2 [klein]: smaller, with another text encoder and no guidance embedding."""

    pipeline_class = "Flux2KleinPipeline"


SPECS = (
    describe(
        Flux2Backbone,
        name="flux.2-dev",
        repo="black-forest-labs/FLUX.2-dev",
        blocks=56,
        width=6144,
        pixels_per_token=16,
        long_side=1024,
        license="FLUX [dev] Non-Commercial License",
    ),
    describe(
        Flux2KleinBackbone,
        name="flux.2-klein-4b",
        repo="black-forest-labs/FLUX.2-klein-4B",
        blocks=25,
        width=3072,
        pixels_per_token=16,
        long_side=1024,
        license="Apache-2.0",
    ),
    describe(
        Flux2KleinBackbone,
        name="flux.2-klein-9b",
        repo="black-forest-labs/FLUX.2-klein-9B",
        blocks=32,
        width=4096,
        pixels_per_token=16,
        long_side=1024,
        license="see its publisher",
    ),
)
