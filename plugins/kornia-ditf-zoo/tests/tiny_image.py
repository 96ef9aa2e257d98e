"""Tiny models of the families of images, but for those with FLUX's blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_zoo import (
    CHANNELS,
    CHAT,
    DEEP_COMPRESSION,
    FLUX2_VAE,
    KL_4,
    KL_SHIFTED,
    LANGUAGE,
    PROCESSOR,
    QWEN_VAE,
    ROTARY,
    SIX_CHANNELS,
    TEXT,
    WAN_VAE,
    encoder,
    kl,
    letters,
    qwen3_vl,
    qwen_vl,
    scheduler,
    t5,
    tiny_model,
    vae,
)

from kornia_ditf.testing import tiny

# The families that read text by attention alone.

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

# The families whose text has a stream of its own.

tiny_model(
    "auraflow-0.3",
    {
        "sample_size": 8,
        "num_mmdit_layers": 2,
        "num_single_dit_layers": 2,
        "caption_projection_dim": 32,
        "pos_embed_max_size": 64,
    },
    KL_4,
    t5(class_name="UMT5EncoderModel"),
)

_COGVIEW: dict[str, Any] = {"num_layers": 3, "text_embed_dim": TEXT, "time_embed_dim": 8}
tiny_model(
    "cogview3-plus",
    {**_COGVIEW, "condition_dim": 2, "pos_embed_max_size": 8, "sample_size": 8},
    kl(),
    scheduler("CogVideoXDDIMScheduler", snr_shift_scale=4.0),
    t5(),
)
tiny_model("cogview4", {**_COGVIEW, "condition_dim": 4}, kl(), letters(), encoder("GlmModel"))
tiny_model(
    "glm-image",
    {
        **_COGVIEW,
        "in_channels": 4,
        "out_channels": 4,
        "condition_dim": 4,
        "prior_vq_quantizer_codebook_size": 8,
    },
    kl(4, scaling_factor=0.18215, **CHANNELS),
    t5(),
)

_QWEN: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 4,
}
tiny_model("qwen-image", _QWEN, QWEN_VAE, qwen_vl)
tiny_model(
    "qwen-image-layered",
    {
        **_QWEN,
        "in_channels": 24,
        "out_channels": 6,
        "use_additional_t_cond": True,
        "use_layer3d_rope": True,
    },
    # The pipeline takes images for latents where both have as many channels.
    vae("AutoencoderKLQwenImage", **SIX_CHANNELS, input_channels=4),
    qwen_vl,
)

_JOY: dict[str, Any] = {
    "in_channels": 4,
}
for _name in ("joyai-image-edit", "joyai-image-edit-plus"):
    tiny_model(
        _name,
        _JOY,
        WAN_VAE,
        qwen3_vl(tokenizer="processor"),
        letters(),
        processor=PROCESSOR,
    )

tiny_model(
    "hidream-i1-full",
    {
        "patch_size": 2,
        "in_channels": 16,
        "caption_channels": [TEXT, TEXT],
        "text_emb_dim": 32,
        "num_routed_experts": 2,
        "num_activated_experts": 2,
        "max_resolution": (16, 16),
        "llama_layers": (0, 1, 0, 1),
    },
    KL_SHIFTED,
    letters(),
    encoder("CLIPTextModelWithProjection", projection_dim=16),
    letters("_2"),
    encoder("CLIPTextModelWithProjection", suffix="_2", projection_dim=16),
    t5("_3"),
    letters("_4"),
    encoder("LlamaForCausalLM", suffix="_4"),
)

# The families with one stream of text and image.

tiny_model(
    "lumina-image-2.0",
    {
        "sample_size": 8,
        "num_kv_heads": 1,
        "multiple_of": 2,
        "axes_dim_rope": ROTARY,
        "axes_lens": (300, 16, 16),
    },
    KL_SHIFTED,
    letters(),
    encoder("Gemma2Model"),
)

_ZIMAGE: dict[str, Any] = {
    "axes_lens": [1024, 16, 16],
}
tiny_model(
    "z-image-turbo",
    {**_ZIMAGE, "n_kv_heads": 2},
    KL_SHIFTED,
    letters(chat_template=CHAT),
    encoder("Qwen3Model"),
)
tiny_model(
    "bria-fibo-2",
    {
        **_ZIMAGE,
        "in_channels": 4,
        "cap_feat_dim": 3 * 16,
        "injection_layer_ids": (0, 1, 1, 2, 2),
        "perceiver_num_layers": 1,
        "min_num_gist_tokens": 4,
        "max_num_gist_tokens": 8,
        "gist_step": 2,
        "gist_min_text_len": 4,
        "gist_max_text_len": 256,
    },
    FLUX2_VAE,
    qwen3_vl(layers=36, width=16, tokenizer="processor"),
    processor=PROCESSOR,
)

tiny_model(
    "qwen-image-2.1",
    {
        "in_channels": 4,
        "out_channels": 4,
    },
    vae(
        "AutoencoderKLQwenImage21",
        dim_mult=[1, 1, 1, 1, 1],
        **CHANNELS,
        decoder_base_dim=4,
    ),
    qwen3_vl(tokenizer="processor"),
    processor=PROCESSOR,
)

tiny_model(
    "krea-2-raw",
    {
        "num_key_value_heads": 1,
        "in_channels": 16,
        "timestep_embed_dim": 16,
        "text_hidden_dim": TEXT,
        "num_text_layers": 2,
        "text_num_attention_heads": 2,
        "text_num_key_value_heads": 2,
        "text_intermediate_size": 32,
        "num_layerwise_text_blocks": 1,
        "num_refiner_text_blocks": 1,
    },
    QWEN_VAE,
    qwen3_vl("Qwen3VLModel"),
    text_encoder_select_layers=[1, 2],
)

tiny_model(
    "ideogram-4",
    {
        "in_channels": 16,
        "adaln_dim": 8,
        "llm_features_dim": 13 * 12,
        "mrope_section": (2, 2, 2),
    },
    FLUX2_VAE,
    qwen3_vl("Qwen3VLModel", layers=36, width=12),
)

tiny_model(
    "ernie-image",
    {
        "ffn_hidden_size": 32,
        "in_channels": 16,
        "out_channels": 16,
        "text_in_dim": TEXT,
        "rope_axes_dim": ROTARY,
    },
    FLUX2_VAE,
    letters(),
    encoder("Qwen3Model"),  # for Mistral 3, whose layers are many
)

tiny_model(
    "omnigen",
    {
        "num_key_value_heads": 2,
        "vocab_size": 29,
        "pad_token_id": 0,
        "time_step_dim": 16,
        "pos_embed_max_size": 16,
        "rope_scaling": {"short_factor": [1.0] * 8, "long_factor": [1.0] * 8},
    },
    KL_4,
    scheduler(invert_sigmas=True, num_train_timesteps=1),
    letters(),
)
