"""HunyuanImage 2.1: FLUX's two lists of blocks on 32-fold compressed latents, the image first."""

from __future__ import annotations

from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.flux import GuidedBackbone, flux_streams
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone


class HunyuanImageBackbone(GuidedBackbone, TrimmedPromptBackbone):
    """HunyuanImage 2.1, and its distilled model."""

    transformer_class = "HunyuanImageTransformer2DModel"
    pipeline_class = "HunyuanImagePipeline"
    vae_class = "AutoencoderKLHunyuanImage"
    streams = flux_streams(tokens="first")
    time = "t"
    default_guidance = 3.25
    guidance_unit = 1000.0
    unused_parts = ("guider", "ocr_guider")
    prompt_outputs = (
        "prompt_embeds",
        "prompt_attention_mask",
        "prompt_embeds_2",
        "prompt_attention_mask_2",
    )
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "encoder_attention_mask": "prompt_attention_mask",
        "encoder_hidden_states_2": "prompt_embeds_2",
        "encoder_attention_mask_2": "prompt_attention_mask_2",
    }

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        # Their dtype becomes that of all that they are mixed with.
        time = inputs["timestep"].to(latent.dtype)
        guidance = super().further_inputs(latent, inputs)["guidance"]
        return {
            "timestep": time,
            # The distilled model is told where a step would end: here, where it is.
            "timestep_r": time if self.config.use_meanflow else None,
            "guidance": None if guidance is None else guidance.to(latent.dtype),
        }
