"""PRX: a stream of the image alone, whose attention reads the text besides.

LayerNorm without gain, scale and shift: `adaln` is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.inputs import full_batch
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning


class PRXBackbone(DiffusersBackbone):
    """PRX on the latents of FLUX.1's VAE."""

    transformer_class = "PRXTransformer2DModel"
    pipeline_class = "PRXPipeline"
    blocks_from = ("depth",)
    width_from = ("hidden_size",)
    streams = (
        BlockStream(
            blocks="blocks",
            norm="img_pre_norm",
            attention="attention",
            modulation=LinearModulation("modulation.lin"),
        ),
    )
    head = ("final_layer",)
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        return {
            "hidden_states": latent,
            "timestep": full_batch(latent, timestep / 1000),
            "encoder_hidden_states": conditioning["prompt_embeds"],
            "attention_mask": conditioning["prompt_attention_mask"].bool(),
        }


class PRXDCBackbone(PRXBackbone):
    """PRX on the latents of the deep-compression VAE that Sana uses."""

    vae_class = "AutoencoderDC"


def _spec(
    backbone: type[PRXBackbone], side: int, *, suffix: str = "", pixels_per_token: int = 16
) -> BackboneSpec:
    return backbone.spec(
        name=f"prx-{side}{suffix[:3]}",
        repo=f"Photoroom/prx-{side}-t2i-sft{suffix}",
        blocks=16,
        width=1792,
        pixels_per_token=pixels_per_token,
        long_side=side,
        license="Apache-2.0",
    )


SPECS = (
    _spec(PRXBackbone, 256),
    _spec(PRXBackbone, 512),
    _spec(PRXDCBackbone, 512, suffix="-dc-ae", pixels_per_token=32),
)
