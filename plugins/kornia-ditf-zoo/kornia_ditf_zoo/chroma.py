"""Chroma: FLUX's blocks without modulation layers; one network makes it for all of them.

LayerNorm without gain, scale and shift: `adaln` is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.tap import ArgumentModulation, BlockStream
from kornia_ditf.types import Conditioning
from kornia_ditf_zoo.family import TrimmedTexts, describe, every_row, pack, positions


class ChromaBackbone(TrimmedTexts):
    """Chroma1.

    The model was trained with its text masked up to one token of padding, and here the masked
    tokens are left out, which is the same. diffusers 0.42.1 passes the mask as floating-point
    numbers, which its attention adds instead (its issue 12116).
    """

    transformer_class = "ChromaTransformer2DModel"
    pipeline_class = "ChromaPipeline"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1.norm",
            attention="attn",
            modulation=ArgumentModulation("temb"),
        ),
        BlockStream(
            blocks="single_transformer_blocks",
            norm="norm.norm",
            attention="attn",
            modulation=ArgumentModulation("temb"),
            tokens="last",
        ),
    )
    head = ("norm_out", "proj_out")

    @property
    def patch_size(self) -> int:
        return 2  # the pipeline packs 2 x 2 cells; the configuration says 1

    @property
    def latent_channels(self) -> int:
        return int(self.config.in_channels) // 4

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        told = self.trim(conditioning)
        text = told["prompt_embeds"]
        rows, columns = latent.shape[2] // 2, latent.shape[3] // 2
        return {
            "hidden_states": pack(latent),
            "encoder_hidden_states": text,
            "timestep": every_row(latent, timestep / 1000),
            "img_ids": positions(rows, columns, device=latent.device),
            "txt_ids": torch.zeros(text.shape[1], 3, device=latent.device),
        }

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, _, mask, *_ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        return {"prompt_embeds": text, "prompt_attention_mask": mask.bool()}


SPECS = (
    describe(
        ChromaBackbone,
        name="chroma1-hd",
        repo="lodestones/Chroma1-HD",
        blocks=57,
        width=3072,
        pixels_per_token=16,
        long_side=1024,
        license="Apache-2.0",
    ),
)
