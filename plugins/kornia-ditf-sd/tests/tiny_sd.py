"""Tiny random Stable Diffusion models, saved in the real layout, and descriptors made of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from kornia_ditf_sd.descriptor import DIFT, DIFTConfig
from kornia_ditf_sd.loading import load_dift
from torch import Tensor

from kornia_ditf.testing import tiny

SD: dict[str, Any] = {
    "block_out_channels": (8, 16, 24, 24),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "sample_size": 8,
}
UNETS: dict[str, dict[str, Any]] = {
    "sd1.5": SD,
    "sd2.1": {**SD, "attention_head_dim": (1, 2, 3, 3), "use_linear_projection": True},
    "sdxl": {
        **SD,
        "block_out_channels": (8, 16, 24),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 24,
        "attention_head_dim": (1, 2, 3),
        "transformer_layers_per_block": (1, 1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 16,
    },
}
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@tiny.seeded()
def save(family: str, path: Path) -> None:
    """Save a tiny random model, sharded."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(**UNETS[family])
    tiny.randomise(unet)
    unet.save_pretrained(path / "unet", max_shard_size=tiny.SHARD_SIZE)
    tiny.save_vae(path, channels=4, scaling_factor=0.9)
    if family == "sdxl":
        tiny.save_scheduler(path, "EulerDiscreteScheduler", **BETAS, steps_offset=1)
        tiny.save_clip(path, width=8)
        tiny.save_clip(path, "_2", width=16, projection=16)
        tiny.save_index(path, "StableDiffusionXLPipeline")
    else:
        tiny.save_scheduler(path, "PNDMScheduler", **BETAS, steps_offset=1, skip_prk_steps=True)
        tiny.save_clip(path, width=16)
        tiny.save_index(
            path,
            "StableDiffusionPipeline",
            safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
            feature_extractor=["transformers", "CLIPImageProcessor"],
        )


def image(height: int = 64, width: int = 128, batch: int = 1) -> Tensor:
    """Draw images, the same every time."""
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


@cache
def loaded(path: Path) -> DIFT:
    """Load a model once, up to its last up block but one."""
    return load_dift(path, up_ft_index=2)


def made(path: Path, **options: Any) -> DIFT:
    """Make another descriptor of the modules that are loaded; the tests on loading load anew."""
    parts = loaded(path)
    return DIFT(
        parts.unet,
        parts.vae,
        prompt_encoder=parts.prompt_encoder,
        schedule=parts.schedule,
        config=DIFTConfig(**options),
    )
