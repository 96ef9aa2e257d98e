"""Tiny models of the video families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_zoo import (
    CHANNELS,
    LANGUAGE,
    ROTARY,
    SIX_CHANNELS,
    TEXT,
    TRANSFORMER,
    WAN_VAE,
    encoder,
    letters,
    made,
    scheduler,
    t5,
    tiny_model,
    vae,
)

from kornia_ditf.testing import tiny

SIZE: dict[str, Any] = {"in_channels": 4, "out_channels": 4}

_UNIPC = scheduler("UniPCMultistepScheduler", use_flow_sigmas=True)
_UMT5 = t5(class_name="UMT5EncoderModel")


def _expert(folder: Path) -> None:
    low = folder / "low"
    tiny.save_transformer(made("WanTransformer3DModel", TRANSFORMER, SIZE), low)
    (low / "transformer").rename(folder / "transformer_2")
    low.rmdir()


tiny_model("wan2.1-1.3b", SIZE, WAN_VAE, _UNIPC, _UMT5, transformer_2=[None, None])
tiny_model("wan2.2-a14b", SIZE, WAN_VAE, _UNIPC, _UMT5, _expert, boundary_ratio=0.875)
tiny_model(
    "wan2.2-5b",
    {**SIZE, "in_channels": 6, "out_channels": 6},
    vae(
        "AutoencoderKLWan",
        **SIX_CHANNELS,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        is_residual=True,
    ),
    _UNIPC,
    _UMT5,
    transformer_2=[None, None],
    expand_timesteps=True,
)
tiny_model("skyreels-v2-14b", SIZE, WAN_VAE, _UNIPC, _UMT5)

_LTX: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 8,
}
_LTX_VAE: dict[str, Any] = {
    "latent_channels": 8,
    "block_out_channels": (8,) * 4,
    "decoder_block_out_channels": (8,) * 4,
    "layers_per_block": (1,) * 5,
    "decoder_layers_per_block": (1,) * 5,
}
tiny_model("ltx-video", _LTX, vae("AutoencoderKLLTXVideo", **_LTX_VAE), t5())


def _gemma3(folder: Path) -> None:
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {**LANGUAGE, "vocab_size": tiny.save_letters(folder, model_max_length=1024)}
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = Gemma3Config(text_config=text, vision_config=dict.fromkeys(sizes, 2))
    Gemma3ForConditionalGeneration(config).save_pretrained(folder / "text_encoder")
    connectors = LTX2TextConnectors(
        caption_channels=TEXT,
        text_proj_in_factor=3,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=12,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=8,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=12,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=8,
    )
    connectors.save_pretrained(folder / "connectors")


tiny_model(
    "ltx-2",
    {
        **_LTX,
        "audio_in_channels": 8,
        "audio_out_channels": 8,
        "audio_num_attention_heads": 2,
        "audio_attention_head_dim": 8,
        "audio_cross_attention_dim": 16,
    },
    vae(
        "AutoencoderKLLTX2Video",
        latent_channels=8,
        decoder_block_out_channels=(8,) * 3,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 4,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    ),
    _gemma3,
    connectors=["ltx2", "LTX2TextConnectors"],
)

_COGVIDEO: dict[str, Any] = {
    **SIZE,
    "sample_width": 12,
    "sample_height": 8,
    "sample_frames": 9,
}
for _name, _more in {
    "cogvideox-2b": {"use_rotary_positional_embeddings": False},
    "cogvideox-5b": {"use_rotary_positional_embeddings": True},
    "cogvideox1.5-5b": {
        "use_rotary_positional_embeddings": True,
        "patch_size_t": 2,
        "patch_bias": False,
        "sample_height": 16,
        "sample_width": 16,
    },
}.items():
    tiny_model(
        _name,
        {**_COGVIDEO, **_more},
        vae(
            "AutoencoderKLCogVideoX",
            sample_height=64,
            sample_width=96,
        ),
        scheduler("CogVideoXDDIMScheduler", snr_shift_scale=3.0, rescale_betas_zero_snr=True),
        t5(),
    )

tiny_model(
    "hunyuanvideo",
    {
        **SIZE,
        "pooled_projection_dim": 16,
        "rope_axes_dim": ROTARY,
    },
    vae(
        "AutoencoderKLHunyuanVideo",
    ),
    letters(),
    encoder("LlamaModel", num_hidden_layers=3),
    lambda folder: tiny.save_clip(folder, "_2"),
)


def _guider(folder: Path) -> None:
    from diffusers.guiders import ClassifierFreeGuidance

    ClassifierFreeGuidance(guidance_scale=1.0).save_pretrained(folder / "guider")


tiny_model(
    "hunyuanvideo-1.5",
    {
        **SIZE,
        "in_channels": 9,
        "num_layers": 2,
        "image_embed_dim": 8,
        "rope_axes_dim": ROTARY,
    },
    vae(
        "AutoencoderKLHunyuanVideo15",
        block_out_channels=(8,) * 5,
        scaling_factor=0.4,
    ),
    letters(chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}"),
    encoder(
        "Qwen2_5_VLTextModel",
        num_hidden_layers=3,
        head_dim=12,
        rope_parameters={"rope_type": "default", "mrope_section": [2, 2, 2]},
    ),
    t5("_2"),
    _guider,
)


def _t5_gemma2(folder: Path) -> None:
    from transformers import T5Gemma2Encoder, T5Gemma2EncoderConfig

    letters = tiny.save_letters(folder, model_max_length=512)
    text = {**LANGUAGE, "vocab_size": letters, "dropout_rate": 0.0}
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = T5Gemma2EncoderConfig(text_config=text, vision_config=dict.fromkeys(sizes, 2))
    T5Gemma2Encoder(config).save_pretrained(folder / "text_encoder")


tiny_model(
    "motif-video",
    {
        **SIZE,
        "in_channels": 9,
        "num_single_layers": 3,
        "num_decoder_layers": 2,
        "rope_axes_dim": ROTARY,
    },
    WAN_VAE,
    _t5_gemma2,
    _guider,
)

tiny_model(
    "mochi-1",
    {
        "num_attention_heads": 8,  # as many as pool its text
        "attention_head_dim": 4,
        "pooled_projection_dim": 16,
        "in_channels": 4,
        "time_embed_dim": 16,
    },
    vae(
        "AutoencoderKLMochi",
        encoder_block_out_channels=(8, 32, 32, 32),
        decoder_block_out_channels=(8, 32, 32, 32),
        layers_per_block=(1,) * 5,
        **CHANNELS,
    ),
    scheduler(invert_sigmas=True),
    t5(),
)
