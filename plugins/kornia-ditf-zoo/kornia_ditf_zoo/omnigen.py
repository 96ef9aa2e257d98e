"""OmniGen: a language model's blocks on words, a time token and the image's tokens. No AdaLN.

The time is a token among others, and a block normalises without modulation: `adaln` is
gain * x / rms(x), with the block's own gain, and so is `discard+layernorm`. What the paper gains
from AdaLN is not to be had here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import BlockStream, NoModulation
from kornia_ditf.types import Conditioning
from kornia_ditf_zoo.family import read_tokenizer

_TOKENS = 512
_TEMPLATE = (
    "<|user|>\nGenerate an image according to the following instructions\n"
    "{}<|end|>\n<|assistant|>\n<|diffusion|>"
)


class OmniGenBackbone(TrimmedPromptBackbone):
    """OmniGen; its transformer embeds the words itself, so that there is no text encoder.

    Args:
        transformer: an OmniGenTransformer2DModel.
        vae: its AutoencoderKL, or the encoder alone.
        tokenizer: its tokenizer.
        options: see `DiffusersBackbone`.
    """

    transformer_class = "OmniGenTransformer2DModel"
    width_from = ("hidden_size",)
    streams = (
        BlockStream(
            blocks="layers",
            norm="input_layernorm",
            attention="self_attn",
            modulation=NoModulation(),
            tokens="last",
        ),
    )
    head = ("norm", "norm_out", "proj_out")
    time = "1 - t / 1000"
    positions_from = "pos_embed_max_size"
    padded = ("input_ids", "prompt_attention_mask")
    prompt_inputs = {"input_ids": "input_ids"}

    def __init__(
        self,
        transformer: nn.Module,
        vae: nn.Module | None = None,
        *,
        tokenizer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(transformer, vae, **options)
        self.tokenizer = tokenizer

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        return {"tokenizer": read_tokenizer(checkpoint, "tokenizer")}

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        words = torch.zeros(len(prompts), _TOKENS, dtype=torch.long)
        mask = torch.zeros_like(words, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            found = self.tokenizer(_TEMPLATE.format(prompt)).input_ids
            if len(found) > _TOKENS:
                raise InvalidArgumentError(
                    f"a prompt may have up to {_TOKENS} tokens with its instruction, got "
                    f"{len(found)}; shorten it"
                )
            words[row, : len(found)] = torch.tensor(found)
            mask[row, : len(found)] = True
        return Conditioning({"input_ids": words, "prompt_attention_mask": mask})

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        before = inputs["input_ids"].shape[1] + 1  # the words, and the time
        count = before + prod(self.token_grid(latent))
        # Words see what precedes them; the image's tokens see all.
        visible = torch.ones(count, count, device=latent.device).tril()
        visible[before:] = 1
        return {
            "input_img_latents": [],
            "input_image_sizes": {},
            "attention_mask": visible.repeat(len(latent), 1, 1),
            "position_ids": torch.arange(count, device=latent.device).repeat(len(latent), 1),
        }
