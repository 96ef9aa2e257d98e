"""Z-Image: one stream of image and text; RMS norms with gain, a scale, no shift; time reversed.

`adaln` is (1 + scale) * gain * x / rms(x): nothing is subtracted and nothing is added. The norm's
gain is the block's own; `discard+layernorm` is the norm with its gain.
"""

from __future__ import annotations

from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.inputs import batch_time
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning

_TOKENS = 512
Z_IMAGE_BLOCKS = BlockStream(
    blocks="layers",
    norm="attention_norm1",
    attention="attention",
    modulation=LinearModulation("adaLN_modulation.0", shift=None, scale=0, gates=(1, 3)),
    tokens="first",
)


class ZImageBackbone(DiffusersBackbone):
    """Z-Image; the forward itself takes texts of different lengths, and masks what it fills up."""

    transformer_class = "ZImageTransformer2DModel"
    pipeline_class = "ZImagePipeline"
    blocks_from = ("n_layers",)
    width_from = ("dim",)
    streams = (Z_IMAGE_BLOCKS,)
    head = ("all_final_layer",)
    positions_from = "axes_lens"
    prompt_outputs = ("prompt_embeds",)
    prompt_length = _TOKENS
    prompt_options = {"max_sequence_length": _TOKENS}

    @property
    def patch_size(self) -> int:
        return int(self.config.all_patch_size[0])

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        masks = conditioning["prompt_attention_mask"].bool()
        texts = conditioning["prompt_embeds"]
        return {
            "x": list(latent.unsqueeze(2)),
            "t": batch_time(latent, timestep, "1 - t / 1000"),
            "cap_feats": [text[mask] for text, mask in zip(texts, masks, strict=True)],
            "patch_size": self.patch_size,
        }
