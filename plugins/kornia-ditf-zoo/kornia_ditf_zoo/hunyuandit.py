"""HunyuanDiT: cross-attention to two texts; the later half of the blocks take skips.

The first norm is a LayerNorm with gain and bias, and the block adds a shift alone. So `adaln` is
norm(x) + shift, with no scale; `discard+layernorm` keeps the gain and bias.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone, read_schedule
from kornia_ditf.backbones.inputs import full_batch
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf_zoo.family import fit_grid

_BASE = 512 // 16  # tokens of the side of the images it was first trained on
_SIZE = 1024  # told to the model as the size of the original, as the pipeline does


class HunyuanDiTBackbone(DiffusersBackbone):
    """HunyuanDiT 1.1 and 1.2; its schedule is the checkpoint's own."""

    transformer_class = "HunyuanDiT2DModel"
    pipeline_class = "HunyuanDiTPipeline"
    streams = (
        BlockStream(
            blocks="blocks",
            norm="norm1.norm",  # behind the skip, which is part of the block
            attention="attn1",
            modulation=LinearModulation("norm1.linear", scale=None, gates=()),
        ),
    )
    time = "int(t)"
    unused_parts = ("safety_checker", "feature_extractor")
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "text_embedding_mask": "prompt_attention_mask",
        "encoder_hidden_states_t5": "prompt_embeds_2",
        "text_embedding_mask_t5": "prompt_attention_mask_2",
    }

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"schedule": read_schedule(checkpoint)}

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        from diffusers.models.embeddings import get_2d_rotary_pos_embed

        height, width = (side * self.pixels_per_cell for side in latent.shape[2:])
        grid = self.token_grid(latent)
        sizes = torch.tensor([_SIZE, _SIZE, height, width, 0, 0], device=latent.device)
        rotary = get_2d_rotary_pos_embed(
            int(self.config.attention_head_dim),
            fit_grid(grid, (_BASE, _BASE)),
            grid,
            device=latent.device,
            output_type="pt",
        )
        return {
            # Its dtype becomes that of all that the time is mixed with.
            "timestep": inputs["timestep"].to(latent.dtype),
            "image_meta_size": sizes.to(latent.dtype).repeat(len(latent), 1),
            "style": full_batch(latent, 0, torch.long),
            "image_rotary_emb": rotary,
        }

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        parts = super().pipeline_modules(checkpoint, dtype)
        return {**parts, "requires_safety_checker": False}

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for index, suffix in enumerate(("", "_2")):  # CLIP or BERT, then mT5
            text, _, mask, _ = pipeline.encode_prompt(
                [prompt], do_classifier_free_guidance=False, text_encoder_index=index
            )
            found |= {f"prompt_embeds{suffix}": text, f"prompt_attention_mask{suffix}": mask}
        return found
