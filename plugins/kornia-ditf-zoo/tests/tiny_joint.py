"""Tiny models of the families whose text has a stream of its own."""

from __future__ import annotations

from pathlib import Path

from tiny_zoo import (
    CHANNELS,
    HEADS,
    ROTARY,
    TEXT,
    VIDEO,
    encoder,
    qwen_vl,
    saver,
    t5,
    transformer,
    vae,
)

from kornia_ditf.testing import tiny


@saver("auraflow-0.3")
def _auraflow(folder: Path) -> None:
    transformer(
        folder,
        "AuraFlowTransformer2DModel",
        **HEADS,
        sample_size=8,
        num_mmdit_layers=2,
        num_single_dit_layers=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    tiny.save_vae(folder, channels=4, scaling_factor=0.2)
    tiny.save_scheduler(folder)
    t5(folder, class_name="UMT5EncoderModel")
    tiny.save_index(folder, "AuraFlowPipeline")


@saver("cogview3-plus")
def _cogview3(folder: Path) -> None:
    transformer(
        folder,
        "CogView3PlusTransformer2DModel",
        **HEADS,
        num_layers=3,
        text_embed_dim=TEXT,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=8,
    )
    tiny.save_vae(folder, channels=16, scaling_factor=0.4)
    tiny.save_scheduler(folder, "CogVideoXDDIMScheduler", snr_shift_scale=4.0)
    t5(folder)
    tiny.save_index(folder, "CogView3PlusPipeline")


@saver("cogview4")
def _cogview4(folder: Path) -> None:
    transformer(
        folder,
        "CogView4Transformer2DModel",
        **HEADS,
        num_layers=3,
        text_embed_dim=TEXT,
        time_embed_dim=8,
        condition_dim=4,
    )
    tiny.save_vae(folder, channels=16, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder)
    encoder(folder, "GlmModel")
    tiny.save_index(folder, "CogView4Pipeline")


@saver("qwen-image")
def _qwenimage(folder: Path) -> None:
    transformer(
        folder,
        "QwenImageTransformer2DModel",
        **HEADS,
        in_channels=16,
        out_channels=4,
        num_layers=3,
        joint_attention_dim=TEXT,
        axes_dims_rope=ROTARY,
    )
    vae(folder, "AutoencoderKLQwenImage", **VIDEO, **CHANNELS)
    tiny.save_scheduler(folder)
    qwen_vl(folder)
    tiny.save_index(folder, "QwenImagePipeline")


@saver("hidream-i1-full")
def _hidream(folder: Path) -> None:
    transformer(
        folder,
        "HiDreamImageTransformer2DModel",
        **HEADS,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        caption_channels=[TEXT, TEXT],
        text_emb_dim=32,
        num_routed_experts=2,
        num_activated_experts=2,
        axes_dims_rope=ROTARY,
        max_resolution=(16, 16),
        llama_layers=(0, 1, 0, 1),
    )
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    for suffix in ("", "_2"):
        tiny.save_letters(folder, suffix)
        encoder(folder, "CLIPTextModelWithProjection", suffix=suffix, projection_dim=16)
    t5(folder, "_3")
    tiny.save_letters(folder, "_4")
    encoder(folder, "LlamaForCausalLM", suffix="_4")
    tiny.save_index(folder, "HiDreamImagePipeline")


@saver("glm-image")
def _glm_image(folder: Path) -> None:
    transformer(
        folder,
        "GlmImageTransformer2DModel",
        **HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        text_embed_dim=TEXT,
        time_embed_dim=8,
        condition_dim=4,
        prior_vq_quantizer_codebook_size=8,
    )
    tiny.save_vae(
        folder,
        channels=4,
        latents_mean=CHANNELS["latents_mean"],
        latents_std=CHANNELS["latents_std"],
    )
    tiny.save_scheduler(folder)
    t5(folder)
    tiny.save_index(folder, "GlmImagePipeline")
