"""Tiny random Stable Diffusion models, saved in the real layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / ".cache"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny random model, sharded, saved once; not to be changed."""
    made: dict[str, Path] = {}

    def give(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            with tiny.seeded():
                save(family, made[family])
        return made[family]

    return give


def save(family: str, path: Path) -> None:
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
