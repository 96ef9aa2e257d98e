"""HiDream-I1: double-stream blocks, then single-stream ones, each fed by its own layer of Llama."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.inputs import full_batch
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning

LLAMA = "meta-llama/Meta-Llama-3.1-8B-Instruct"
"""Where the fourth text encoder comes from, which the repositories do not hold."""


class HiDreamBackbone(DiffusersBackbone):
    """HiDream-I1; images that are not square it fills up to its largest number of tokens itself."""

    transformer_class = "HiDreamImageTransformer2DModel"
    pipeline_class = "HiDreamImagePipeline"
    streams = (
        BlockStream(
            blocks="double_stream_blocks",
            norm="block.norm1_i",
            attention="block.attn1",
            modulation=LinearModulation("block.adaLN_modulation.1", gates=(2, 5)),
            tokens="first",
        ),
        BlockStream(
            blocks="single_stream_blocks",
            norm="block.norm1_i",
            attention="block.attn1",
            modulation=LinearModulation("block.adaLN_modulation.1"),
            tokens="first",
        ),
    )
    head = ("final_layer",)

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        tokens = prod(self.token_grid(latent))
        most = prod(self.config.max_resolution) // self.patch_size**2
        if tokens > most:
            raise InvalidArgumentError(
                f"this model takes up to {most} tokens, got {tokens}; use a smaller long_side"
            )
        return {
            "hidden_states": latent,
            "timesteps": full_batch(latent, timestep),
            "encoder_hidden_states_t5": conditioning["prompt_embeds_t5"],
            "encoder_hidden_states_llama3": conditioning["prompt_embeds_llama3"].transpose(0, 1),
            "pooled_embeds": conditioning["pooled_prompt_embeds"],
        }

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        modules = super().pipeline_modules(checkpoint, dtype)
        if checkpoint.exists("text_encoder_4/config.json"):
            return modules
        from transformers import AutoTokenizer, LlamaForCausalLM

        return {
            **modules,
            "tokenizer_4": AutoTokenizer.from_pretrained(LLAMA),
            "text_encoder_4": LlamaForCausalLM.from_pretrained(LLAMA, dtype=dtype),
        }

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        t5, _, llama, _, pooled, _ = pipeline.encode_prompt(
            [prompt], do_classifier_free_guidance=False
        )
        return {
            "prompt_embeds_t5": t5,
            "prompt_embeds_llama3": llama.transpose(0, 1),  # a row per prompt, then its layers
            "pooled_prompt_embeds": pooled,
        }
