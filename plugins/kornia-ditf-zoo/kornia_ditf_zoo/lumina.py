"""Lumina-Image 2.0 and Lumina-Next: RMS norms with gain, a scale and no shift; time is reversed.

`adaln` is (1 + scale) * gain * x / rms(x): nothing is subtracted and nothing is added. The norm's
gain is the block's own; `discard+layernorm` is the norm with its gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kornia_ditf.backbones.inputs import full_batch
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning

_SCALE_ONLY = LinearModulation("norm1.linear", shift=None, scale=0, gates=(1, 3))


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
            modulation=_SCALE_ONLY,
            tokens="last",
        ),
    )
    head = ("norm_out",)
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")

    @property
    def max_cells(self) -> int:
        return int(min(self.config.axes_lens[1:])) * self.patch_size

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        given = self.trim(conditioning)
        return {
            "hidden_states": latent,
            "timestep": full_batch(latent, 1 - timestep / 1000),
            "encoder_hidden_states": given["prompt_embeds"],
            "encoder_attention_mask": given["prompt_attention_mask"].bool(),
        }


SPECS = (
    Lumina2Backbone.spec(
        name="lumina-image-2.0",
        repo="Alpha-VLLM/Lumina-Image-2.0",
        blocks=26,
        width=2304,
        long_side=1024,
        license="Apache-2.0",
    ),
)
