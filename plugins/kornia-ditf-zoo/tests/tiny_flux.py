"""Tiny models of the families with FLUX's two lists of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_zoo import (
    CHANNELS,
    CHAT,
    HEADS,
    ROTARY,
    TEXT,
    VIDEO,
    encoder,
    flux2_vae,
    qwen_vl,
    saver,
    t5,
    transformer,
    vae,
)

from kornia_ditf.testing import tiny


@saver("chroma1-hd")
def _chroma(folder: Path) -> None:
    transformer(
        folder,
        "ChromaTransformer2DModel",
        **HEADS,
        num_layers=2,
        num_single_layers=2,
        joint_attention_dim=TEXT,
        axes_dims_rope=ROTARY,
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    t5(folder)
    tiny.save_index(folder, "ChromaPipeline")


def _flux2(folder: Path, *, guidance: bool) -> None:
    transformer(
        folder,
        "Flux2Transformer2DModel",
        **HEADS,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        joint_attention_dim=3 * TEXT,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )
    flux2_vae(folder)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder, chat_template=CHAT)


@saver("flux.2-dev")
def _flux2_dev(folder: Path) -> None:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    _flux2(folder, guidance=True)
    text = {
        "model_type": "mistral",
        "vocab_size": 29,
        "hidden_size": TEXT,
        "intermediate_size": 8,
        "num_hidden_layers": 31,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    config = Mistral3Config(text_config=text, vision_config=vision, image_token_index=2)
    Mistral3ForConditionalGeneration(config).save_pretrained(folder / "text_encoder")
    tiny.save_index(folder, "Flux2Pipeline")


@saver("flux.2-klein-4b")
def _flux2_klein(folder: Path) -> None:
    _flux2(folder, guidance=False)
    encoder(folder, "Qwen3ForCausalLM", num_hidden_layers=28, intermediate_size=8)
    tiny.save_index(folder, "Flux2KleinPipeline", is_distilled=True)


def _fluxlike(folder: Path, class_name: str, **config: Any) -> None:
    sizes = {"num_layers": 2, "num_single_layers": 2, "axes_dims_rope": list(ROTARY)}
    transformer(folder, class_name, **HEADS, **sizes, joint_attention_dim=TEXT, **config)
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)


@saver("ovis-image")
def _ovis(folder: Path) -> None:
    _fluxlike(folder, "OvisImageTransformer2DModel")
    tiny.save_letters(folder, chat_template=CHAT)
    encoder(folder, "Qwen3Model")
    tiny.save_index(folder, "OvisImagePipeline")


@saver("bria-3.2")
def _bria(folder: Path) -> None:
    _fluxlike(folder, "BriaTransformer2DModel")
    t5(folder)
    tiny.save_index(folder, "BriaPipeline")


@saver("longcat-image")
def _longcat(folder: Path) -> None:
    _fluxlike(folder, "LongCatImageTransformer2DModel")
    qwen_vl(folder)
    (folder / "tokenizer").rename(folder / "text_processor")
    tiny.save_letters(folder)
    tiny.save_index(folder, "LongCatImagePipeline")


@saver("flux.1-kontext-dev")
def _kontext(folder: Path) -> None:
    _fluxlike(folder, "FluxTransformer2DModel", pooled_projection_dim=16, guidance_embeds=True)
    tiny.save_clip(folder)
    t5(folder, "_2")
    tiny.save_index(folder, "FluxKontextPipeline")


@saver("bria-fibo")
def _fibo(folder: Path) -> None:
    transformer(
        folder,
        "BriaFiboTransformer2DModel",
        **HEADS,
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        joint_attention_dim=2 * TEXT,
        text_encoder_dim=TEXT,
        axes_dims_rope=list(ROTARY),
    )
    vae(
        folder,
        "AutoencoderKLWan",
        **VIDEO,
        **CHANNELS,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    tiny.save_scheduler(folder)
    tiny.save_letters(folder)
    encoder(folder, "SmolLM3ForCausalLM", vocab_size=128001)  # its empty prompt is 128000
    tiny.save_index(folder, "BriaFiboPipeline")


@saver("hunyuanimage-2.1")
def _hunyuanimage(folder: Path) -> None:
    transformer(
        folder,
        "HunyuanImageTransformer2DModel",
        **HEADS,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=TEXT,
        text_embed_2_dim=TEXT,
        rope_axes_dim=(8, 8),
        guidance_embeds=True,
    )
    vae(
        folder,
        "AutoencoderKLHunyuanImage",
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(32,) * 6,
        layers_per_block=1,
        spatial_compression_ratio=32,
        sample_size=64,
        scaling_factor=0.4,
    )
    tiny.save_scheduler(folder)
    qwen_vl(folder)
    t5(folder, "_2")
    tiny.save_index(folder, "HunyuanImagePipeline")
