"""Ideogram 4: one stream of text and image, RMS norms with gain, a scale and no shift.

`adaln` is (1 + scale) * gain * x / rms(x): nothing is subtracted and nothing is added. The norm's
gain is the block's own; `discard+layernorm` is the norm with its gain.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.inputs import grid_positions, pad_prompt
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import BlockStream, LinearModulation

_TEXT, _IMAGE = 3, 2  # how the forward tells words from image tokens
_IMAGE_POSITIONS_FROM = 65536


class Ideogram4Backbone(TrimmedPromptBackbone):
    """Ideogram 4; image tokens behind the prompt's."""

    transformer_class = "Ideogram4Transformer2DModel"
    pipeline_class = "Ideogram4Pipeline"
    vae_class = "AutoencoderKLFlux2"
    streams = (
        BlockStream(
            blocks="layers",
            norm="attention_norm1",
            attention="attention",
            modulation=LinearModulation("adaln_modulation", shift=None, scale=0, gates=(1, 3)),
            tokens="last",
        ),
    )
    head = ("final_layer",)
    packed = 1
    patch_first = True
    time = "1 - t / 1000"
    unused_parts = ("unconditional_transformer", "prompt_enhancer_head")
    prompt_length = 512

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        text, tokens = inputs["encoder_hidden_states"], inputs["hidden_states"]
        words, cells = text.shape[1], tokens.shape[1]
        rows, columns = latent.shape[2:]
        places = grid_positions(rows, columns, device=latent.device) + _IMAGE_POSITIONS_FROM
        order = torch.arange(words, device=latent.device)[:, None].expand(-1, 3)
        kinds = torch.tensor([_TEXT] * words + [_IMAGE] * cells, device=latent.device)
        return {
            # Its dtype becomes that of all that the time is mixed with.
            "timestep": inputs["timestep"].to(latent.dtype),
            "hidden_states": F.pad(tokens, (0, 0, words, 0)),
            "encoder_hidden_states": F.pad(text, (0, 0, 0, cells)),
            "position_ids": torch.cat([order, places.long()]).repeat(len(latent), 1, 1),
            "segment_ids": torch.ones_like(kinds).repeat(len(latent), 1),
            "indicator": kinds.repeat(len(latent), 1),
        }

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        encoder = pipeline.text_encoder
        text, _, _, kinds = pipeline.encode_prompt(
            [prompt], 0, 0, max_sequence_length=2048, device=encoder.device
        )
        words = text[:, kinds[0] == _TEXT].to(encoder.dtype)
        return pad_prompt({"prompt_embeds": words}, cls.prompt_length)
