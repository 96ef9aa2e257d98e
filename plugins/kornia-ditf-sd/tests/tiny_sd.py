"""Tiny random Stable Diffusion models, saved in the real layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SD = {
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
FAMILIES = tuple(UNETS)
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@torch.no_grad()
def save_tiny(family: str, path: Path) -> None:
    """Save a tiny random model of a family, with all that its repository holds."""
    import diffusers

    unet = diffusers.UNet2DConditionModel(**UNETS[family])
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.9,
    )
    for parameter in [*unet.parameters(), *vae.parameters()]:
        if parameter.ndim == 1:  # biases and gains are constant at first
            parameter += 0.1 * torch.randn_like(parameter)
    unet.save_pretrained(path / "unet", max_shard_size="60KB")
    vae.save_pretrained(path / "vae")
    scheduler = "EulerDiscreteScheduler" if family == "sdxl" else "PNDMScheduler"
    scheduler_class: Any = getattr(diffusers, scheduler)
    scheduler_class(**BETAS, steps_offset=1).save_pretrained(path / "scheduler")
    index = {
        "_class_name": "StableDiffusionXLPipeline"
        if family == "sdxl"
        else "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", scheduler],
    }
    if family == "sdxl":
        save_clip(path, "", index, width=8, projected=False)
        save_clip(path, "_2", index, width=16, projected=True)
    else:
        save_clip(path, "", index, width=16, projected=False)
        index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
        index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (path / "model_index.json").write_text(json.dumps(index))


def save_clip(
    path: Path, suffix: str, index: dict[str, Any], *, width: int, projected: bool
) -> None:
    import transformers

    pieces = [*LETTERS, *(letter + "</w>" for letter in LETTERS)]
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    words |= {piece: 2 + number for number, piece in enumerate(pieces)}
    folder = path / f"tokenizer{suffix}"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    ).save_pretrained(folder)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    name = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
    model_class: Any = getattr(transformers, name)
    model_class(config).save_pretrained(path / f"text_encoder{suffix}")
    index[f"text_encoder{suffix}"] = ["transformers", name]
    index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
