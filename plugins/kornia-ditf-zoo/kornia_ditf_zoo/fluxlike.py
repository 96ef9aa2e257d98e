"""FLUX.1 Kontext, BRIA 3.2, Ovis-Image and LongCat-Image: FLUX's blocks, each with its own text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.flux import FluxBackbone, FluxLikeBackbone
from kornia_ditf.loading.checkpoint import Checkpoint


class FluxKontextBackbone(FluxBackbone):
    """FLUX.1 Kontext, called without a reference image."""

    pipeline_class = "FluxKontextPipeline"


class OvisImageBackbone(FluxLikeBackbone):
    """Ovis-Image; words are numbered along both axes of the image."""

    transformer_class = "OvisImageTransformer2DModel"
    pipeline_class = "OvisImagePipeline"

    def positions(self, words: int, cells: Tensor) -> tuple[Tensor, Tensor]:
        numbers = cells.new_zeros(words, 3)
        numbers[:, 1:] = torch.arange(words, device=cells.device)[:, None]
        return numbers, cells


class BriaBackbone(FluxLikeBackbone):
    """BRIA 3.2; words have no position, and time is counted to 1000."""

    transformer_class = "BriaTransformer2DModel"
    pipeline_class = "BriaPipeline"
    time = "t"

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        # Its constructor looks at the VAE.
        return {**super().pipeline_modules(checkpoint, dtype), "vae": cls.load_vae(checkpoint)}

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        say_dtype(pipeline)
        return super().encode_prompt(pipeline, prompt)


def say_dtype(pipeline: Any) -> None:
    """Stand in for a pipeline's transformer that is not loaded, since BRIA's ask for its dtype."""
    if pipeline.transformer is None:
        pipeline.transformer = SimpleNamespace(dtype=pipeline.text_encoder.dtype)


class LongCatImageBackbone(OvisImageBackbone):
    """LongCat-Image; the image's positions begin behind those of the longest text."""

    transformer_class = "LongCatImageTransformer2DModel"
    pipeline_class = "LongCatImagePipeline"
    unused_parts = ("text_processor",)

    def positions(self, words: int, cells: Tensor) -> tuple[Tensor, Tensor]:
        behind = torch.tensor([1, 512, 512], device=cells.device)  # the first axis: an image
        return super().positions(words, cells)[0], cells + behind
