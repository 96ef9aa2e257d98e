"""Qwen-Image: text in a stream of its own, latents of a video VAE, one frame.

LayerNorm without gain, scale and shift: `adaln` is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning
from kornia_ditf_zoo.family import TrimmedTexts, describe, every_row, pack, pad_texts

_TOKENS = 512


class QwenImageBackbone(TrimmedTexts):
    """Qwen-Image."""

    transformer_class = "QwenImageTransformer2DModel"
    pipeline_class = "QwenImagePipeline"
    vae_class = "AutoencoderKLQwenImage"
    blocks_from = ("num_layers",)
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="img_norm1",
            attention="attn",
            modulation=LinearModulation("img_mod.1"),
        ),
    )
    head = ("norm_out", "proj_out")

    @property
    def latent_channels(self) -> int:
        return int(self.config.in_channels) // self.patch_size**2

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        told = self.trim(conditioning)
        rows, columns = (side // self.patch_size for side in latent.shape[2:])
        return {
            "hidden_states": pack(latent, self.patch_size),
            "encoder_hidden_states": told["prompt_embeds"],
            "timestep": every_row(latent, timestep / 1000),
            "img_shapes": [[(1, rows, columns)]] * len(latent),
        }

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        # One at a time, so that the pipeline pads nothing.
        texts = [
            pipeline.encode_prompt([prompt], max_sequence_length=_TOKENS)[0][0]
            for prompt in prompts
        ]
        text, mask = pad_texts(texts, _TOKENS)
        return {"prompt_embeds": text, "prompt_attention_mask": mask}


SPECS = (
    describe(
        QwenImageBackbone,
        name="qwen-image",
        repo="Qwen/Qwen-Image",
        blocks=60,
        width=3072,
        pixels_per_token=16,
        long_side=1328,
        license="Apache-2.0",
    ),
)
