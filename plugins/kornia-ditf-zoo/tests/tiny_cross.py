"""Tiny models of the families that read text by attention alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_zoo import (
    DEEP_COMPRESSION,
    KL_4,
    KL_SHIFTED,
    LANGUAGE,
    PROCESSOR,
    QWEN_VAE,
    TEXT,
    encoder,
    kl,
    letters,
    qwen3_vl,
    qwen_vl,
    scheduler,
    t5,
    tiny_model,
)

from kornia_ditf.testing import tiny

tiny_model(
    "hunyuandit-1.2",
    {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "num_layers": 4,
        "cross_attention_dim": TEXT,
        "cross_attention_dim_t5": TEXT,
        "pooled_projection_dim": 16,
    },
    KL_4,
    scheduler("DDPMScheduler", beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.03),
    letters(),
    encoder("BertModel", type_vocab_size=2),
    t5("_2"),
    safety_checker=[None, None],
)

tiny_model(
    "sana-1600m-1024",
    {
        "in_channels": 8,
        "out_channels": 8,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16,
    },
    DEEP_COMPRESSION,
    letters(),
    encoder("Gemma2Model"),
)


def _t5_gemma(folder: Path) -> None:
    import diffusers.pipelines.prx  # noqa: F401 - gives transformers the encoder by its name
    import transformers
    from transformers import T5GemmaConfig, T5GemmaModuleConfig

    module = T5GemmaModuleConfig(
        **{**LANGUAGE, "vocab_size": tiny.save_letters(folder, model_max_length=256)}
    )
    module.dropout_rate = 0.0  # which the whole model's configuration sets
    kind: Any = transformers.T5GemmaEncoder
    kind(module).save_pretrained(folder / "text_encoder")
    config = T5GemmaConfig(encoder=module, decoder=module, architectures=["T5GemmaEncoder"])
    config.save_pretrained(folder / "text_encoder")


_PRX: dict[str, Any] = {
    "num_heads": 2,
    "depth": 3,
    "axes_dim": [8, 8],
}
tiny_model("prx-512", {**_PRX, "in_channels": 16, "patch_size": 2}, KL_SHIFTED, _t5_gemma)
tiny_model("prx-512-dc", {**_PRX, "in_channels": 8, "patch_size": 1}, DEEP_COMPRESSION, _t5_gemma)
tiny_model(
    "prx-pixel",
    {**_PRX, "in_channels": 3, "patch_size": 16, "bottleneck_size": 16, "resolution_embeds": True},
    letters(model_max_length=256),
    encoder("Qwen3Model"),
)

tiny_model(
    "nucleus-image",
    {
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 5,
        "mlp_ratio": 6.0,
        "num_experts": 2,
        "moe_intermediate_dim": 8,
        "capacity_factors": 1.0,
    },
    QWEN_VAE,
    qwen3_vl(layers=8, tokenizer="processor"),
    processor=PROCESSOR,
)

tiny_model(
    "kandinsky-5-t2i-lite",
    {
        "in_visual_dim": 16,
        "out_visual_dim": 16,
        "in_text_dim": TEXT,
        "in_text_dim2": 16,
        "time_dim": 16,
        "model_dim": 32,
        "ff_dim": 64,
        "num_text_blocks": 1,
        "num_visual_blocks": 3,
    },
    kl(),
    qwen_vl,
    lambda folder: tiny.save_clip(folder, "_2"),
)
