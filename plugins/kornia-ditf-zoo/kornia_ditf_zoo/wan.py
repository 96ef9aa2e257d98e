"""Wan 2.1: a video model on one frame; text through cross-attention.

LayerNorm without gain, scale and shift by adaLN-single, all in float32: `adaln` is the paper's.
"""

from __future__ import annotations

from typing import Any

import torch

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.backbones.video import VideoBackbone
from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import BlockStream, TableModulation


class WanBackbone(VideoBackbone):
    """Wan with one text-to-video transformer; Wan 2.2 A14B has two, and is refused."""

    transformer_class = "WanTransformer3DModel"
    pipeline_class = "WanPipeline"
    vae_class = "AutoencoderKLWan"
    streams = (
        BlockStream(
            blocks="blocks",
            norm="norm1",
            attention="attn1",
            modulation=TableModulation("temb"),
        ),
    )
    time = "t"
    prompt_outputs = ("prompt_embeds",)
    prompt_options = {
        "do_classifier_free_guidance": False,
        "max_sequence_length": 512,
    }

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        second = checkpoint.json("model_index.json").get("transformer_2") or [None]
        if second[0] is not None:
            raise CheckpointError(
                f"{checkpoint.source} has two transformers, one for each end of the noise; "
                "only Wan models with one are known"
            )
        return {}

    @property
    def patch_size(self) -> int:
        return int(self.config.patch_size[1])

    @property
    def max_cells(self) -> int:
        return int(self.config.rope_max_seq_len) * self.patch_size

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        return {**super().pipeline_modules(checkpoint, dtype), "transformer_2": None}


def _spec(size: str, *, blocks: int, width: int) -> BackboneSpec:
    return WanBackbone.spec(
        name=f"wan2.1-{size.lower()}",
        repo=f"Wan-AI/Wan2.1-T2V-{size}-Diffusers",
        blocks=blocks,
        width=width,
        long_side=832,
        license="Apache-2.0",
    )


SPECS = (_spec("1.3B", blocks=30, width=1536), _spec("14B", blocks=40, width=5120))
