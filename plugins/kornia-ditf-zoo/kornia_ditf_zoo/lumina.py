"""Lumina-Image 2.0 and Lumina-Next: RMS norms with gain, a scale and no shift; time is reversed.

`adaln` is (1 + scale) * gain * x / rms(x): nothing is subtracted and nothing is added. The norm's
gain is the block's own; `discard+layernorm` is the norm with its gain.
"""

from __future__ import annotations

from kornia_ditf.backbones.declared import MASKED_TEXT
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import BlockStream, LinearModulation


class Lumina2Backbone(TrimmedPromptBackbone):
    """Lumina-Image 2.0; image tokens stand behind the prompt's, and are numbered after them."""

    transformer_class = "Lumina2Transformer2DModel"
    pipeline_class = "Lumina2Pipeline"
    width_from = ("hidden_size",)
    streams = (
        BlockStream(
            blocks="layers",
            norm="norm1.norm",
            attention="attn",
            modulation=LinearModulation("norm1.linear", shift=None, scale=0, gates=(1, 3)),
            tokens="last",
        ),
    )
    head = ("norm_out",)
    time = "1 - t / 1000"
    positions_from = "axes_lens"
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")
    prompt_inputs = MASKED_TEXT
