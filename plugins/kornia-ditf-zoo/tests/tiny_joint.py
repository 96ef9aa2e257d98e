"""Tiny models of the families whose text has a stream of its own."""

from __future__ import annotations

from typing import Any

from tiny_zoo import (
    CHANNELS,
    KL_4,
    KL_SHIFTED,
    PROCESSOR,
    QWEN_VAE,
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
