"""PixArt-alpha and PixArt-Sigma: adaLN-single, text through masked cross-attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones import configs
from kornia_ditf.backbones.declared import MASKED_TEXT, Inputs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone, read_schedule
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import ADALN_SINGLE


class PixArtBackbone(DiffusersBackbone):
    """PixArt-alpha at 512 and 1024 pixels; its schedule is the checkpoint's own."""

    transformer_class = "PixArtTransformer2DModel"
    pipeline_class = "PixArtAlphaPipeline"
    streams = (ADALN_SINGLE,)
    time = "int(t)"
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")
    prompt_inputs = MASKED_TEXT  # unmasked padding moves the features by several percent

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"schedule": read_schedule(checkpoint)}

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        return {"added_cond_kwargs": self._size_conditions(latent)}

    def _size_conditions(self, latent: Tensor) -> dict[str, Tensor | None]:
        if not self.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * self.pixels_per_cell for side in latent.shape[2:])
        rows = latent.new_ones(len(latent), 1)
        return {
            "resolution": torch.cat([rows * height, rows * width], 1),
            "aspect_ratio": rows * (height / width),
        }


class PixArtSigmaBackbone(PixArtBackbone):
    """PixArt-Sigma: the same transformer, 300 text tokens."""

    pipeline_class = "PixArtSigmaPipeline"


def _spec(backbone: type[PixArtBackbone], name: str, repo: str, side: int) -> BackboneSpec:
    return backbone.spec(
        name=name,
        repo=f"PixArt-alpha/{repo}",
        architecture=configs.pixart(side // 8, sizes=name == "pixart-alpha-1024"),
        blocks=28,
        width=1152,
        long_side=side,
        license="OpenRAIL++",
    )


SPECS: tuple[BackboneSpec, ...] = (
    _spec(PixArtBackbone, "pixart-alpha-512", "PixArt-XL-2-512x512", 512),
    _spec(PixArtBackbone, "pixart-alpha-1024", "PixArt-XL-2-1024-MS", 1024),
    _spec(PixArtSigmaBackbone, "pixart-sigma-1024", "PixArt-Sigma-XL-2-1024-MS", 1024),
)
