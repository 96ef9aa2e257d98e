"""Lumina-Image 2.0 and Lumina-Next: RMS norms with gain, a scale and no shift; time is reversed.

`adaln` is (1 + scale) * gain * x / rms(x): nothing is subtracted and nothing is added. The norm's
gain is the block's own; `discard+layernorm` is the norm with its gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning
from kornia_ditf_zoo.family import TrimmedTexts, describe, every_row

_SCALE_ONLY = LinearModulation("norm1.linear", shift=None, scale=0)


class Lumina2Backbone(TrimmedTexts):
    """Lumina-Image 2.0; image tokens stand behind the prompt's, and are numbered after them."""

    transformer_class = "Lumina2Transformer2DModel"
    pipeline_class = "Lumina2Pipeline"
    blocks_from = ("num_layers",)
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

    @property
    def max_cells(self) -> int:
        return int(min(self.config.axes_lens[1:])) * self.patch_size

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        told = self.trim(conditioning)
        return {
            "hidden_states": latent,
            "timestep": every_row(latent, 1 - timestep / 1000),
            "encoder_hidden_states": told["prompt_embeds"],
            "encoder_attention_mask": told["prompt_attention_mask"].bool(),
        }

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, mask, *_ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        return {"prompt_embeds": text, "prompt_attention_mask": mask}


SPECS = (
    describe(
        Lumina2Backbone,
        name="lumina-image-2.0",
        repo="Alpha-VLLM/Lumina-Image-2.0",
        blocks=26,
        width=2304,
        pixels_per_token=16,
        long_side=1024,
        license="Apache-2.0",
    ),
)
