"""Sana: linear attention on the 32-fold compressed latents of a VAE without a posterior."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from kornia_ditf.backbones.declared import MASKED_TEXT, Inputs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import ADALN_SINGLE


class SanaBackbone(DiffusersBackbone):
    """Sana at 512 and 1024 pixels; not Sana-Sprint, whose time means another thing."""

    transformer_class = "SanaTransformer2DModel"
    pipeline_class = "SanaPipeline"
    vae_class = "AutoencoderDC"
    streams = (ADALN_SINGLE,)
    time = "t"
    prompt_inputs = MASKED_TEXT

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        if checkpoint.json("transformer/config.json").get("guidance_embeds"):
            raise CheckpointError(
                f"{checkpoint.source} is a Sana-Sprint, whose time is an angle; use a Sana, such "
                "as sana-1600m-1024"
            )
        return {}

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        return {"timestep": inputs["timestep"] * float(self.config.timestep_scale)}

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        # The instruction that precedes every prompt is a default of the pipeline's call alone.
        call = inspect.signature(type(pipeline).__call__).parameters
        text, mask, _, _ = pipeline.encode_prompt(
            [prompt],
            do_classifier_free_guidance=False,
            complex_human_instruction=call["complex_human_instruction"].default,
        )
        return {"prompt_embeds": text, "prompt_attention_mask": mask}
