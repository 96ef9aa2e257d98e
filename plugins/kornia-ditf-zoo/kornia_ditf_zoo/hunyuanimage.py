"""HunyuanImage 2.1: FLUX's two lists of blocks on 32-fold compressed latents, the image first.

LayerNorm without gain, scale and shift: `adaln` is the paper's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.flux import flux_streams
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.types import Conditioning


class HunyuanImageBackbone(TrimmedPromptBackbone):
    """HunyuanImage 2.1, and its distilled model.

    Args:
        transformer: a HunyuanImageTransformer2DModel.
        vae: its VAE, or the encoder alone.
        guidance: the distilled guidance scale; models without an embedding ignore it.
        options: see `DiffusersBackbone`.
    """

    transformer_class = "HunyuanImageTransformer2DModel"
    pipeline_class = "HunyuanImagePipeline"
    vae_class = "AutoencoderKLHunyuanImage"
    streams = flux_streams(tokens="first")
    time = "t"
    prompt_outputs = (
        "prompt_embeds",
        "prompt_attention_mask",
        "prompt_embeds_2",
        "prompt_attention_mask_2",
    )
    prompt_options = {}
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "prompt_attention_mask",
        "encoder_hidden_states_2": "prompt_embeds_2",
        "encoder_attention_mask_2": "prompt_attention_mask_2",
    }

    def __init__(
        self,
        transformer: nn.Module,
        vae: nn.Module | None = None,
        *,
        guidance: float = 3.25,
        **options: Any,
    ) -> None:
        super().__init__(transformer, vae, **options)
        self.guidance = guidance

    def settings(self) -> str:
        return f"{super().settings()} guidance={self.guidance}"

    @property
    def patch_size(self) -> int:
        return int(self.config.patch_size[-1])

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        told = super().transformer_inputs(latent, timestep, conditioning)
        # Its dtype becomes that of all that the time is mixed with.
        time = told["timestep"].to(latent.dtype)
        guided = self.config.guidance_embeds
        return {
            **told,
            "timestep": time,
            # The distilled model is told where a step would end: here, where it is.
            "timestep_r": time if self.config.use_meanflow else None,
            "guidance": torch.full_like(time, 1000 * self.guidance) if guided else None,
        }

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        unused = {"guider": None, "ocr_guider": None}
        return {**super().pipeline_modules(checkpoint, dtype), **unused}
