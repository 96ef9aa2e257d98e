"""JoyAI-Image-Edit and Edit-Plus, called without images to edit; text in a stream of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.inputs import pack
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import BlockStream, TableModulation
from kornia_ditf_zoo.family import ProcessorBackbone


class JoyImageEditBackbone(ProcessorBackbone, TrimmedPromptBackbone):
    """JoyAI-Image-Edit; latents of a video VAE, one frame."""

    transformer_class = "JoyImageEditTransformer3DModel"
    pipeline_class = "JoyImageEditPipeline"
    vae_class = "AutoencoderKLWan"
    width_from = ("hidden_size",)
    streams = (
        BlockStream(
            blocks="double_blocks",
            norm="img_norm1",
            attention="attn",
            modulation=TableModulation("temb", table="img_mod.modulate_table"),
        ),
    )
    time = "t"
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")
    prompt_length = 1024

    def arrange(self, latent: Tensor) -> Tensor:
        return latent[:, None, :, None]  # one image, of one frame


class JoyImageEditPlusBackbone(JoyImageEditBackbone):
    """JoyAI-Image-Edit-Plus, which takes images of several sizes as one list of patches."""

    transformer_class = "JoyImageEditPlusTransformer3DModel"
    pipeline_class = "JoyImageEditPlusPipeline"
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "encoder_hidden_states_mask": "prompt_attention_mask",
    }

    def arrange(self, latent: Tensor) -> Tensor:
        patch, packed = self.patch_size, pack(latent, self.patch_size)
        return packed.reshape(*packed.shape[:2], -1, 1, patch, patch)

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        return {"shape_list": [[(1, *self.token_grid(latent))]] * len(latent)}

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        turn = f"<|im_start|>user\n{prompt}<|im_end|>\n"
        encoded = pipeline.encode_prompt_multiple_images(turn)
        return cls.name_prompt(encoded)
