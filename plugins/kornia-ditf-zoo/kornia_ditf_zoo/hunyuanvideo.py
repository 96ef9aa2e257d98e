"""HunyuanVideo, its version 1.5, and Motif-Video: FLUX's blocks on clips, the image's first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import MASKED_TEXT, Inputs
from kornia_ditf.backbones.flux import GuidedBackbone, flux_streams
from kornia_ditf.backbones.video import VideoBackbone
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.types import Conditioning
from kornia_ditf_zoo.family import FirstFrameBackbone
from kornia_ditf_zoo.hunyuanimage import HunyuanImageBackbone

_IMAGE_TOKENS = 729  # of a first frame, in the text


class HunyuanVideoBackbone(GuidedBackbone, VideoBackbone):
    """HunyuanVideo, text to video."""

    transformer_class = "HunyuanVideoTransformer3DModel"
    pipeline_class = "HunyuanVideoPipeline"
    vae_class = "AutoencoderKLHunyuanVideo"
    streams = flux_streams(tokens="first")
    time = "t"
    prompt_outputs = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")
    prompt_inputs = {**MASKED_TEXT, "pooled_projections": "pooled_prompt_embeds"}
    default_guidance = 6.0
    guidance_unit = 1000.0


class HunyuanVideo15Backbone(FirstFrameBackbone):
    """HunyuanVideo 1.5, text to video: double-stream blocks alone."""

    transformer_class = "HunyuanVideo15Transformer3DModel"
    pipeline_class = "HunyuanVideo15Pipeline"
    vae_class = "AutoencoderKLHunyuanVideo15"
    streams = flux_streams()[:1]
    time = "t"
    unused_parts = ("guider",)
    prompt_outputs = HunyuanImageBackbone.prompt_outputs
    prompt_inputs = HunyuanImageBackbone.prompt_inputs

    def encode(self, image: Tensor) -> Tensor:
        # The causal mask of its VAE does not fit a batch.
        encode = super().encode
        return torch.cat([encode(image[row : row + 1]) for row in range(len(image))])

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        image = latent.new_zeros(len(latent), _IMAGE_TOKENS, int(self.config.image_embed_dim))
        # Its dtype becomes that of all that the time is mixed with.
        return {"timestep": inputs["timestep"].to(latent.dtype), "image_embeds": image}

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        # Its constructor looks at the VAE.
        return {**super().pipeline_modules(checkpoint, dtype), "vae": cls.load_vae(checkpoint)}


class MotifVideoBackbone(FirstFrameBackbone):
    """Motif-Video, text to video; its last blocks begin anew from the embedded latents."""

    transformer_class = "MotifVideoTransformer3DModel"
    pipeline_class = "MotifVideoPipeline"
    vae_class = "AutoencoderKLWan"
    streams = flux_streams(tokens="first")
    time = "t"
    unused_parts = ("guider", "feature_extractor")
    prompt_outputs = ("prompt_embeds", None, "prompt_attention_mask")
    prompt_inputs = MASKED_TEXT

    def gates(self, timestep: float, conditioning: Conditioning, *, block: int) -> Tensor:
        found = super().gates(timestep, conditioning, block=block)
        anew = self.blocks - int(self.config.num_decoder_layers)
        if block < anew:
            return found
        return found[len(super().gates(timestep, conditioning, block=anew)) :]
