"""Tiny models of the families that read text by attention alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_zoo import (
    CHANNELS,
    HEADS,
    PROCESSOR,
    ROTARY,
    TEXT,
    VIDEO,
    deep_compression,
    encoder,
    qwen3_vl,
    qwen_vl,
    saver,
    t5,
    transformer,
    vae,
)
from torch import nn

from kornia_ditf.testing import tiny


@saver("hunyuandit-1.2")
def _hunyuandit(folder: Path) -> None:
    transformer(
        folder,
        "HunyuanDiT2DModel",
        **HEADS,
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=32,
        num_layers=4,
        cross_attention_dim=TEXT,
        cross_attention_dim_t5=TEXT,
        pooled_projection_dim=16,
    )
    tiny.save_vae(folder, channels=4, scaling_factor=0.2)
    tiny.save_scheduler(
        folder, "DDPMScheduler", beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.03
    )
    tiny.save_letters(folder)
    encoder(folder, "BertModel", type_vocab_size=2)
    t5(folder, "_2")
    tiny.save_index(folder, "HunyuanDiTPipeline", safety_checker=[None, None])


@saver("sana-1600m-1024")
def _sana(folder: Path) -> None:
    transformer(
        folder,
        "SanaTransformer2DModel",
        **HEADS,
        in_channels=8,
        out_channels=8,
        num_layers=3,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=TEXT,
    )
    deep_compression(folder)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder)
    encoder(folder, "Gemma2Model")
    tiny.save_index(folder, "SanaPipeline")


def _prx(folder: Path, channels: int) -> None:
    import diffusers.pipelines.prx  # noqa: F401 - gives transformers the encoder by its name
    import transformers
    from transformers import T5GemmaConfig, T5GemmaModuleConfig

    transformer(
        folder,
        "PRXTransformer2DModel",
        in_channels=channels,
        patch_size=2 if channels == 16 else 1,
        context_in_dim=TEXT,
        hidden_size=32,
        num_heads=2,
        depth=3,
        axes_dim=[8, 8],
    )
    tiny.save_scheduler(folder)
    size = tiny.save_letters(folder, model_max_length=256)
    module = T5GemmaModuleConfig(
        vocab_size=size,
        hidden_size=TEXT,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    module.dropout_rate = 0.0  # which the whole model's configuration sets
    kind: Any = transformers.T5GemmaEncoder
    kind(module).save_pretrained(folder / "text_encoder")
    config = T5GemmaConfig(encoder=module, decoder=module, architectures=["T5GemmaEncoder"])
    config.save_pretrained(folder / "text_encoder")
    tiny.save_index(folder, "PRXPipeline")


@saver("prx-512")
def _prx_kl(folder: Path) -> None:
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    _prx(folder, 16)


@saver("prx-512-dc")
def _prx_dc(folder: Path) -> None:
    deep_compression(folder)
    _prx(folder, 8)


@saver("prx-pixel")
def _prx_pixel(folder: Path) -> None:
    transformer(
        folder,
        "PRXTransformer2DModel",
        in_channels=3,
        patch_size=16,
        context_in_dim=TEXT,
        hidden_size=32,
        num_heads=2,
        depth=3,
        axes_dim=[8, 8],
        bottleneck_size=16,
        resolution_embeds=True,
    )
    tiny.save_scheduler(folder)
    tiny.save_letters(folder, model_max_length=256)
    encoder(folder, "Qwen3Model")
    tiny.save_index(folder, "PRXPixelPipeline")


@saver("nucleus-image")
def _nucleus(folder: Path) -> None:
    from diffusers import NucleusMoEImageTransformer2DModel

    model = NucleusMoEImageTransformer2DModel(
        **HEADS,
        in_channels=16,
        out_channels=4,
        num_layers=5,
        joint_attention_dim=TEXT,
        axes_dims_rope=ROTARY,
        mlp_ratio=6.0,
        num_experts=2,
        moe_intermediate_dim=8,
        capacity_factors=1.0,
    )
    for weights in model.parameters():
        if weights.ndim == 3:  # of the experts, which are made without values
            nn.init.normal_(weights, std=0.05)
    tiny.save_transformer(model, folder)
    vae(folder, "AutoencoderKLQwenImage", **VIDEO, **CHANNELS)
    tiny.save_scheduler(folder)
    qwen3_vl(folder, "Qwen3VLForConditionalGeneration", layers=8)
    (folder / "tokenizer").rename(folder / "processor")
    tiny.save_index(folder, "NucleusMoEImagePipeline", processor=PROCESSOR)


@saver("kandinsky-5-t2i-lite")
def _kandinsky(folder: Path) -> None:
    transformer(
        folder,
        "Kandinsky5Transformer3DModel",
        in_visual_dim=16,
        out_visual_dim=16,
        in_text_dim=TEXT,
        in_text_dim2=16,
        time_dim=16,
        model_dim=32,
        ff_dim=64,
        num_text_blocks=1,
        num_visual_blocks=3,
        axes_dims=ROTARY,
    )
    tiny.save_vae(folder, channels=16, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    qwen_vl(folder)
    tiny.save_clip(folder, "_2")
    tiny.save_index(folder, "Kandinsky5T2IPipeline")
