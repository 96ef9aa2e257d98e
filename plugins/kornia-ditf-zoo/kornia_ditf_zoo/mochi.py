"""Mochi: clips with text in a stream of its own; RMS norms, a scale and no shift.

`adaln` is (1 + scale) * x / rms(x): nothing is subtracted and nothing is added.
"""

from __future__ import annotations

from kornia_ditf.backbones.declared import MASKED_TEXT
from kornia_ditf.backbones.video import VideoBackbone
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf_zoo.family import QuietBackbone


class MochiBackbone(QuietBackbone, VideoBackbone):
    """Mochi 1; six frames in a latent frame."""

    transformer_class = "MochiTransformer3DModel"
    pipeline_class = "MochiPipeline"
    vae_class = "AutoencoderKLMochi"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1.norm",
            attention="attn1",
            modulation=LinearModulation("norm1.linear", shift=None, scale=0, gates=(1, 3)),
        ),
    )
    time = "1000 - t"
    ignored_warning = "In CPU autocast, but the target dtype is not supported"
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")
    prompt_inputs = MASKED_TEXT
