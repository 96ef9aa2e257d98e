"""Tiny models of the families with one stream of text and image."""

from __future__ import annotations

from typing import Any

from tiny_zoo import (
    CHANNELS,
    CHAT,
    FLUX2_VAE,
    KL_4,
    KL_SHIFTED,
    PROCESSOR,
    QWEN_VAE,
    ROTARY,
    TEXT,
    encoder,
    letters,
    qwen3_vl,
    scheduler,
    tiny_model,
    vae,
)

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
