"""AuraFlow: joint blocks, then single-stream blocks; positions are learned, for a largest grid."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.tap import BlockStream, LinearModulation

_JOINT = BlockStream(
    blocks="joint_transformer_blocks",
    norm="norm1.norm",
    attention="attn",
    # The attention's gate acts within the block: the stream adds the feed-forward alone.
    modulation=LinearModulation("norm1.linear", gates=(5,)),
)


class AuraFlowBackbone(DiffusersBackbone):
    """AuraFlow 0.1 to 0.3."""

    transformer_class = "AuraFlowTransformer2DModel"
    pipeline_class = "AuraFlowPipeline"
    blocks_from = ("num_mmdit_layers", "num_single_dit_layers")
    streams = (_JOINT, replace(_JOINT, blocks="single_transformer_blocks", tokens="last"))
    # Padding is zeroed, and attended to, as in the pipeline.
    prompt_outputs = ("prompt_embeds",)

    @property
    def max_cells(self) -> int:
        return isqrt(int(self.config.pos_embed_max_size)) * self.patch_size
