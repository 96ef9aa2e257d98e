"""Chroma: FLUX's blocks without modulation layers; one network makes it for all of them."""

from __future__ import annotations

from kornia_ditf.backbones.flux import FluxLikeBackbone, flux_streams
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import ArgumentModulation


class ChromaBackbone(TrimmedPromptBackbone, FluxLikeBackbone):
    """Chroma1.

    The model was trained with its text masked up to one token of padding, and here the masked
    tokens are left out, which is the same. diffusers 0.42.1 passes the mask as floating-point
    numbers, which its attention adds instead (its issue 12116).
    """

    transformer_class = "ChromaTransformer2DModel"
    pipeline_class = "ChromaPipeline"
    streams = flux_streams(
        ArgumentModulation("temb", gates=(2, 5)),  # the text's chunks follow
        ArgumentModulation("temb"),
    )
    prompt_outputs = ("prompt_embeds", None, "prompt_attention_mask")
