"""BRIA 3.2, Ovis-Image and LongCat-Image: FLUX's blocks, each with its own text and positions.

LayerNorm without gain, scale and shift: `adaln` is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.types import Conditioning
from kornia_ditf_zoo.family import describe, every_row, pack, positions


class OvisImageBackbone(DiffusersBackbone):
    """Ovis-Image; words are numbered along both axes of the image."""

    transformer_class = "OvisImageTransformer2DModel"
    pipeline_class = "OvisImagePipeline"
    streams = (
        BlockStream(
            blocks="transformer_blocks",
            norm="norm1.norm",
            attention="attn",
            modulation=LinearModulation("norm1.linear"),
        ),
        BlockStream(
            blocks="single_transformer_blocks",
            norm="norm.norm",
            attention="attn",
            modulation=LinearModulation("norm.linear"),
            tokens="last",
        ),
    )
    head = ("norm_out", "proj_out")
    time_unit: ClassVar[float] = 1000
    """The paper's timestep is divided by this."""

    @property
    def patch_size(self) -> int:
        return 2  # the pipeline packs 2 x 2 cells; the configuration says 1

    @property
    def latent_channels(self) -> int:
        return int(self.config.in_channels) // 4

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Mapping[str, Any]:
        text = conditioning["prompt_embeds"]
        rows, columns = latent.shape[2] // 2, latent.shape[3] // 2
        words, places = self.number(text.shape[1], positions(rows, columns, device=latent.device))
        return {
            "hidden_states": pack(latent),
            "encoder_hidden_states": text,
            "timestep": every_row(latent, timestep / self.time_unit),
            "img_ids": places,
            "txt_ids": words,
        }

    def number(self, words: int, places: Tensor) -> tuple[Tensor, Tensor]:
        """Give the positions (N, 3) of so many words, and of the image's tokens."""
        numbers = torch.zeros(words, 3, device=places.device)
        numbers[:, 1:] = torch.arange(words, device=places.device)[:, None]
        return numbers, places

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, *_ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        return {"prompt_embeds": text}


class BriaBackbone(OvisImageBackbone):
    """BRIA 3.2; words have no position, and time is counted to 1000."""

    transformer_class = "BriaTransformer2DModel"
    pipeline_class = "BriaPipeline"
    time_unit = 1

    def number(self, words: int, places: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(words, 3, device=places.device), places

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        # Its constructor looks at the VAE.
        return {**super().pipeline_modules(checkpoint, dtype), "vae": cls.load_vae(checkpoint)}

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        if pipeline.transformer is None:  # whose dtype it asks for
            pipeline.transformer = SimpleNamespace(dtype=pipeline.text_encoder.dtype)
        return super().encode_prompts(pipeline, prompts)


class LongCatImageBackbone(OvisImageBackbone):
    """LongCat-Image; the image's positions begin behind those of the longest text."""

    transformer_class = "LongCatImageTransformer2DModel"
    pipeline_class = "LongCatImagePipeline"

    def number(self, words: int, places: Tensor) -> tuple[Tensor, Tensor]:
        behind = torch.tensor([1, 512, 512], device=places.device)  # the first axis: an image
        return super().number(words, places)[0], places + behind

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        return {**super().pipeline_modules(checkpoint, dtype), "text_processor": None}

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, _ = pipeline.encode_prompt(list(prompts))
        return {"prompt_embeds": text}


SPECS = (
    describe(
        OvisImageBackbone,
        name="ovis-image",
        repo="AIDC-AI/Ovis-Image-7B",
        blocks=33,
        width=3072,
        pixels_per_token=16,
        long_side=1024,
        license="Apache-2.0",
    ),
    describe(
        BriaBackbone,
        name="bria-3.2",
        repo="briaai/BRIA-3.2",
        blocks=57,
        width=3072,
        pixels_per_token=16,
        long_side=1024,
        license="see its publisher",
    ),
    describe(
        LongCatImageBackbone,
        name="longcat-image",
        repo="meituan-longcat/LongCat-Image",
        blocks=57,
        width=3072,
        pixels_per_token=16,
        long_side=1024,
        license="Apache-2.0",
    ),
)
