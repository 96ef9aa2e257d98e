"""CogView3-Plus and CogView4: text in a stream of its own, sizes as conditioning."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf_zoo.family import read_own_schedule


class CogView3PlusBackbone(DiffusersBackbone):
    """CogView3-Plus; its schedule is the checkpoint's own, with the shift of CogVideoX's."""

    transformer_class = "CogView3PlusTransformer2DModel"
    pipeline_class = "CogView3PlusPipeline"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1.norm_x",
            attention="attn1",
            modulation=LinearModulation("norm1.linear", gates=(2, 5)),
        ),
    )
    time = "t"
    positions_from: ClassVar[str | None] = "pos_embed_max_size"
    prompt_outputs = ("prompt_embeds",)
    prompt_options = {"max_sequence_length": 224}

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"schedule": read_own_schedule(checkpoint)}

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        pixels = [float(side * self.pixels_per_cell) for side in latent.shape[2:]]
        size = latent.new_tensor(pixels).repeat(len(latent), 1)
        return {
            "original_size": size,
            "target_size": size,
            "crop_coords": 0 * size,
        }


class CogView4Backbone(TrimmedPromptBackbone, CogView3PlusBackbone):
    """CogView4: rotary positions, a straight path, and texts of any multiple of 16 tokens."""

    transformer_class = "CogView4Transformer2DModel"
    pipeline_class = "CogView4Pipeline"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1.norm",
            attention="attn1",
            # The text's chunks stand in between.
            modulation=LinearModulation("norm1.linear", scale=2, gates=(4, 10)),
        ),
    )
    positions_from = None
    prompt_options = {}
    prompt_length = 1024

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {}
