"""ERNIE-Image: one stream of image and text, RMS norms with gain, one modulation for all blocks.

`adaln` is (1 + scale) * gain * x / rms(x) + shift: the mean over the channels is not subtracted.
The norm's gain is the block's own; `discard+layernorm` is the norm with its gain.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.inputs import full_batch, pad_prompt
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import ArgumentModulation, BlockCall, BlockStream


class _TokenFirstModulation(ArgumentModulation):
    """The modulation of every token (N, B, D), as a list of its six parts."""

    __slots__ = ()

    def chunks(self, call: BlockCall, width: int) -> Tensor:
        return torch.stack([part[0] for part in call.arguments[self.argument]], -2)


class ErnieImageBackbone(TrimmedPromptBackbone):
    """ERNIE-Image; its prompts are not enhanced by a language model first."""

    transformer_class = "ErnieImageTransformer2DModel"
    pipeline_class = "ErnieImagePipeline"
    vae_class = "AutoencoderKLFlux2"
    width_from = ("hidden_size",)
    streams = (
        BlockStream(
            blocks="layers",
            norm="adaLN_sa_ln",
            attention="self_attention",
            modulation=_TokenFirstModulation("temb"),
            tokens="first",
            sequence_first=True,
        ),
    )
    head = ("final_norm", "final_linear")
    time = "t"
    unused_parts = ("pe", "pe_tokenizer")
    prompt_length = 512
    prompt_inputs = {"text_bth": "prompt_embeds"}

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        return {"text_lens": full_batch(latent, inputs["text_bth"].shape[1], torch.long)}

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        texts = pipeline.encode_prompt([prompt], pipeline.text_encoder.device)
        return pad_prompt({"prompt_embeds": texts}, cls.prompt_length)
