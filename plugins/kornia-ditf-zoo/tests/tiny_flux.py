"""Tiny models of the families with FLUX's two lists of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_zoo import (
    CHANNELS,
    CHAT,
    FLUX2_VAE,
    KL_SHIFTED,
    LANGUAGE,
    TEXT,
    encoder,
    letters,
    moved,
    qwen3_vl,
    qwen_vl,
    t5,
    tiny_model,
    vae,
)

from kornia_ditf.testing import tiny

tiny_model(
    "chroma1-hd",
    {
        "approximator_num_channels": 8,
        "approximator_hidden_dim": 16,
        "approximator_layers": 1,
    },
    KL_SHIFTED,
    t5(),
)
tiny_model("ovis-image", {}, KL_SHIFTED, letters(chat_template=CHAT), encoder("Qwen3Model"))
tiny_model("bria-3.2", {}, KL_SHIFTED, t5())
tiny_model(
    "longcat-image",
    {},
    KL_SHIFTED,
    qwen_vl,
    moved("tokenizer", "text_processor"),
    letters(),
)
tiny_model(
    "flux.1-kontext-dev",
    {"pooled_projection_dim": 16, "guidance_embeds": True},
    KL_SHIFTED,
    tiny.save_clip,
    t5("_2"),
)


def _mistral3(folder: Path) -> None:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    depth = {"num_hidden_layers": 31, "intermediate_size": 8, "head_dim": 4, "pad_token_id": None}
    text = {**LANGUAGE, **depth, "model_type": "mistral"}
    vision = {
        "model_type": "pixtral",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "image_size": 32,
        "patch_size": 16,
    }
    config = Mistral3Config(text_config=text, vision_config=vision, image_token_index=2)
    Mistral3ForConditionalGeneration(config).save_pretrained(folder / "text_encoder")


_FLUX2: dict[str, Any] = {
    "in_channels": 16,
    "joint_attention_dim": 3 * TEXT,
    "timestep_guidance_channels": 32,
    "axes_dims_rope": (4, 4, 4, 4),
}
tiny_model("flux.2-dev", _FLUX2, FLUX2_VAE, letters(chat_template=CHAT), _mistral3)
tiny_model(
    "flux.2-klein-4b",
    {**_FLUX2, "guidance_embeds": False},
    FLUX2_VAE,
    letters(chat_template=CHAT),
    encoder("Qwen3ForCausalLM", num_hidden_layers=28, intermediate_size=8),
    is_distilled=True,
)
tiny_model(
    "flux.3-klein",
    {
        "in_channels": 16,
        "cond_in_channels": 16,
        "joint_attention_dim": 8 * 16,
        "timestep_channels": 16,
        "axes_dims_rope": (4, 4, 4, 4),
    },
    FLUX2_VAE,
    qwen3_vl(layers=33, width=16),
    _blocks_class_name="Flux3AutoBlocks",
)

tiny_model(
    "bria-fibo",
    {
        "in_channels": 4,
        "joint_attention_dim": 2 * TEXT,
        "text_encoder_dim": TEXT,
    },
    vae(
        "AutoencoderKLWan",
        **CHANNELS,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    ),
    letters(),
    encoder("SmolLM3ForCausalLM", vocab_size=128001),  # its empty prompt is 128000
)

tiny_model(
    "hunyuanimage-2.1",
    {
        "in_channels": 4,
        "out_channels": 4,
        "rope_axes_dim": (8, 8),
        "guidance_embeds": True,
    },
    vae(
        "AutoencoderKLHunyuanImage",
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8,) * 6,
        spatial_compression_ratio=32,
        sample_size=64,
        scaling_factor=0.4,
    ),
    qwen_vl,
    t5("_2"),
)
