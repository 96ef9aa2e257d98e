"""Qwen-Image, its editing model called without a reference image, and Qwen-Image 2.1.

Version 2.1 scales and does not shift: `adaln` is (1 + scale) * norm(x).
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.inputs import full_batch
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.tap import ArgumentModulation, BlockStream, LinearModulation
from kornia_ditf.types import Tap
from kornia_ditf_zoo.family import ProcessorBackbone


class QwenImageBackbone(TrimmedPromptBackbone):
    """Qwen-Image; text in a stream of its own, latents of a video VAE, one frame."""

    transformer_class = "QwenImageTransformer2DModel"
    pipeline_class = "QwenImagePipeline"
    vae_class = "AutoencoderKLQwenImage"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="img_norm1",
            attention="attn",
            modulation=LinearModulation("img_mod.1"),
        ),
    )
    packed = 2
    prompt_outputs = ("prompt_embeds",)
    prompt_length = 512
    prompt_options = {"max_sequence_length": 512}

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        return {"img_shapes": [[(1, *self.token_grid(latent))]] * len(latent)}


class OpaqueBackbone(QwenImageBackbone):
    """A family whose VAE takes the four channels of RGBA; images are opaque."""

    def encode(self, image: Tensor) -> Tensor:
        return super().encode(torch.cat([image, torch.ones_like(image[:, :1])], 1))


class QwenImageLayeredBackbone(OpaqueBackbone):
    """Qwen-Image-Layered, whose only image stands where that to be decomposed does."""

    pipeline_class = "QwenImageLayeredPipeline"
    unused_parts = ("processor",)

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        shapes = super().further_inputs(latent, inputs)
        if not self.config.use_additional_t_cond:
            return shapes
        return {**shapes, "additional_t_cond": full_batch(latent, 0, torch.long)}


class QwenImage21Backbone(ProcessorBackbone, OpaqueBackbone):
    """Qwen-Image 2.1; image tokens behind the prompt's, whose modulation is that of time 0."""

    needs = "diffusers>=0.41"
    transformer_class = "QwenImage21Transformer2DModel"
    pipeline_class = "QwenImage21Pipeline"
    vae_class = "AutoencoderKLQwenImage21"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="img_norm1",
            attention="attn",
            modulation=ArgumentModulation("modulation", shift=None, scale=0, gates=(1, 3)),
            tokens="last",
        ),
    )
    packed = 1
    prompt_options = {}

    def __init__(
        self, transformer: nn.Module, vae: nn.Module | None = None, **options: Any
    ) -> None:
        super().__init__(transformer, vae, **options)
        # The forward asks every block how it attends, those that were not loaded too.
        blocks: Any = transformer.transformer_blocks
        left_out: list[Any] = [block for block in blocks if isinstance(block, nn.Identity)]
        for block in left_out:
            block.attn = SimpleNamespace(processor=blocks[0].attn.processor)

    def taps(self, latent: Tensor, *inputs: Any, **options: Any) -> dict[int, Tap]:
        # The forward counts image tokens in fours, so sides are filled up to be even.
        rows, columns = latent.shape[-2:]
        even = F.pad(latent, (0, columns % 2, 0, rows % 2), mode="replicate")
        found = super().taps(even, *inputs, **options)
        return {block: _crop(tap, rows, columns) for block, tap in found.items()}

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        words = inputs["encoder_hidden_states"].shape[1]
        slots = torch.ones(len(latent), words + inputs["hidden_states"].shape[1] // 4)
        slots[:, :words] = 0
        mask = slots.bool().to(latent.device)
        return {**super().further_inputs(latent, inputs), "img_mask": mask}


def _crop(tap: Tap, rows: int, columns: int) -> Tap:
    if tap.grid == (rows, columns):
        return tap
    x = tap.x.reshape(len(tap.x), *tap.grid, -1)[:, :rows, :columns].flatten(1, 2)
    return replace(tap, x=x, grid=(rows, columns))
