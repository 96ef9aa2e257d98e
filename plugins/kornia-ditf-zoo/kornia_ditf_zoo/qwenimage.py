"""Qwen-Image: text in a stream of its own, latents of a video VAE, one frame.

LayerNorm without gain, scale and shift: `adaln` is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from kornia_ditf.backbones.inputs import full_batch, pack
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning

_TOKENS = 512


class QwenImageBackbone(TrimmedPromptBackbone):
    """Qwen-Image."""

    transformer_class = "QwenImageTransformer2DModel"
    pipeline_class = "QwenImagePipeline"
    vae_class = "AutoencoderKLQwenImage"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="img_norm1",
            attention="attn",
            modulation=LinearModulation("img_mod.1"),
        ),
    )
    prompt_outputs = ("prompt_embeds",)
    prompt_length = _TOKENS
    prompt_options: ClassVar[Mapping[str, Any]] = {"max_sequence_length": _TOKENS}

    @property
    def latent_channels(self) -> int:
        return int(self.config.in_channels) // self.patch_size**2

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        given = self.trim(conditioning)
        rows, columns = (side // self.patch_size for side in latent.shape[2:])
        return {
            "hidden_states": pack(latent, self.patch_size),
            "encoder_hidden_states": given["prompt_embeds"],
            "timestep": full_batch(latent, timestep / 1000),
            "img_shapes": [[(1, rows, columns)]] * len(latent),
        }


SPECS = (
    QwenImageBackbone.spec(
        name="qwen-image",
        repo="Qwen/Qwen-Image",
        blocks=60,
        width=3072,
        long_side=1328,
        license="Apache-2.0",
    ),
)
