"""HunyuanVideo: FLUX's two lists of blocks on clips, the image's tokens first.

LayerNorm without gain, scale and shift: `adaln` is the paper's.
"""

from __future__ import annotations

from torch import Tensor

from kornia_ditf.backbones.declared import MASKED_TEXT, Inputs
from kornia_ditf.backbones.flux import GuidedBackbone, flux_streams
from kornia_ditf.backbones.video import VideoBackbone
from kornia_ditf.types import Conditioning


class HunyuanVideoBackbone(GuidedBackbone, VideoBackbone):
    """HunyuanVideo, text to video."""

    transformer_class = "HunyuanVideoTransformer3DModel"
    pipeline_class = "HunyuanVideoPipeline"
    vae_class = "AutoencoderKLHunyuanVideo"
    streams = flux_streams(tokens="first")
    time = "t"
    prompt_outputs = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")
    prompt_options = {}
    prompt_inputs = {**MASKED_TEXT, "pooled_projections": "pooled_prompt_embeds"}
    default_guidance = 6.0

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        told = super().transformer_inputs(latent, timestep, conditioning)
        guidance = told["guidance"]
        return {**told, "guidance": None if guidance is None else 1000 * guidance}


SPECS = (
    HunyuanVideoBackbone.spec(
        name="hunyuanvideo",
        repo="hunyuanvideo-community/HunyuanVideo",
        blocks=60,
        width=3072,
        long_side=1280,
        license="Tencent Hunyuan Community License",
    ),
)
