"""Tiny random checkpoints of the real architectures, saved in the real diffusers layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kornia_ditf.testing.tiny import (
    save_clip,
    save_index,
    save_scheduler,
    save_t5,
    save_transformer,
    save_vae,
    seeded,
)

DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 4,
    "sample_size": 8,
    "patch_size": 2,
    "norm_type": "ada_norm_zero",
    "num_embeds_ada_norm": 10,
}
PIXART = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 4,
    "cross_attention_dim": 48,
    "caption_channels": 24,
    "sample_size": 8,
    "patch_size": 2,
    "norm_type": "ada_norm_single",
    "use_additional_conditions": False,
}
SD3 = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 4,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 32,
    "pos_embed_max_size": 24,
}
FLUX = {
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 16,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 6, 6),
}
NANO = {
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": 4,
    "num_layers": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_cross_attention_heads": 1,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 32,
    "caption_channels": 8,
    "sample_size": 8,
}
# What the published DiT and PixArt repositories still say, from before they had own classes.
FORMER = {
    "_class_name": "Transformer2DModel",
    "_diffusers_version": "0.12.0",
    "double_self_attention": False,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "use_linear_projection": False,
}
DDPM = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}


def save_tiny(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny random model of a family, sharded, with all that its repository holds."""
    with seeded(seed):
        _SAVERS[family](folder)
    return folder


def _dit(folder: Path) -> None:
    import diffusers

    labels = {str(index): f"class{index}, other name {index}" for index in range(10)}
    save_transformer(diffusers.DiTTransformer2DModel(**DIT), folder, published=FORMER)
    save_vae(folder, channels=4)
    save_scheduler(folder, "DDIMScheduler", **DDPM)
    save_index(folder, "DiTPipeline", id2label=labels)


def _pixart(pipeline: str, **changes: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        import diffusers

        model = diffusers.PixArtTransformer2DModel(**{**PIXART, **changes})
        save_transformer(model, folder, published=FORMER)
        save_vae(folder, channels=4)
        save_scheduler(folder, "DPMSolverMultistepScheduler", **DDPM)
        save_t5(folder)
        save_index(folder, pipeline)

    return save


def _sd3(**changes: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        import diffusers

        save_transformer(diffusers.SD3Transformer2DModel(**{**SD3, **changes}), folder)
        save_vae(folder, channels=16, shift_factor=0.06, scaling_factor=1.5)
        save_scheduler(folder, shift=3.0)
        # Widths as in the real one: the two CLIP embeddings joined fit into T5's.
        save_clip(folder, "", width=8, projection=16)
        save_clip(folder, "_2", width=16, projection=16)
        save_t5(folder, "_3")
        save_index(folder, "StableDiffusion3Pipeline")

    return save


def _flux(guidance: bool) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        import diffusers

        config = {**FLUX, "guidance_embeds": guidance}
        save_transformer(diffusers.FluxTransformer2DModel(**config), folder)
        save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
        save_scheduler(folder, shift=3.0)
        save_clip(folder, "", width=16)
        save_t5(folder, "_2")
        save_index(folder, "FluxPipeline")

    return save


def _nano(folder: Path) -> None:
    import diffusers

    save_transformer(diffusers.SanaTransformer2DModel(**NANO), folder)
    save_scheduler(folder, shift=3.0)
    save_index(folder, "NanoPipeline")


_SAVERS: dict[str, Callable[[Path], None]] = {
    "dit": _dit,
    "pixart-alpha": _pixart("PixArtAlphaPipeline"),
    "pixart-alpha-1024": _pixart("PixArtAlphaPipeline", use_additional_conditions=True),
    "pixart-sigma": _pixart("PixArtSigmaPipeline"),
    "sd3": _sd3(),
    "sd3.5-medium": _sd3(dual_attention_layers=(0, 1), qk_norm="rms_norm"),
    "flux": _flux(guidance=True),
    "flux-schnell": _flux(guidance=False),
    "nano": _nano,
}
FAMILIES = tuple(_SAVERS)
