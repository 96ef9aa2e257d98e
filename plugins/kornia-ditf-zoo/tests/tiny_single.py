"""Tiny models of the families with one stream of text and image."""

from __future__ import annotations

from pathlib import Path

from tiny_zoo import (
    CHANNELS,
    CHAT,
    HEADS,
    PROCESSOR,
    ROTARY,
    TEXT,
    VIDEO,
    encoder,
    flux2_vae,
    qwen3_vl,
    saver,
    transformer,
    vae,
)

from kornia_ditf.testing import tiny


@saver("lumina-image-2.0")
def _lumina2(folder: Path) -> None:
    transformer(
        folder,
        "Lumina2Transformer2DModel",
        sample_size=8,
        hidden_size=32,
        num_layers=3,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=2,
        axes_dim_rope=ROTARY,
        axes_lens=(300, 16, 16),
        cap_feat_dim=TEXT,
    )
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder)
    encoder(folder, "Gemma2Model")
    tiny.save_index(folder, "Lumina2Pipeline")


@saver("z-image-turbo")
def _zimage(folder: Path) -> None:
    transformer(
        folder,
        "ZImageTransformer2DModel",
        dim=32,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT,
        axes_dims=list(ROTARY),
        axes_lens=[1024, 16, 16],
    )
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder, chat_template=CHAT)
    encoder(folder, "Qwen3Model")
    tiny.save_index(folder, "ZImagePipeline")


@saver("qwen-image-2.1")
def _qwenimage21(folder: Path) -> None:
    transformer(
        folder,
        "QwenImage21Transformer2DModel",
        **HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        context_in_dim=TEXT,
        axes_dims_rope=ROTARY,
    )
    vae(
        folder,
        "AutoencoderKLQwenImage21",
        **{**VIDEO, "dim_mult": [1, 1, 1, 1, 1]},
        **CHANNELS,
        decoder_base_dim=4,
    )
    tiny.save_scheduler(folder)
    qwen3_vl(folder, "Qwen3VLForConditionalGeneration")
    (folder / "tokenizer").rename(folder / "processor")
    tiny.save_index(folder, "QwenImage21Pipeline", processor=PROCESSOR)


@saver("krea-2-raw")
def _krea2(folder: Path) -> None:
    transformer(
        folder,
        "Krea2Transformer2DModel",
        **HEADS,
        num_key_value_heads=1,
        in_channels=16,
        num_layers=3,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=TEXT,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=ROTARY,
    )
    vae(folder, "AutoencoderKLQwenImage", **VIDEO, **CHANNELS)
    tiny.save_scheduler(folder)
    qwen3_vl(folder, "Qwen3VLModel")
    tiny.save_index(folder, "Krea2Pipeline", text_encoder_select_layers=[1, 2])


@saver("ideogram-4")
def _ideogram(folder: Path) -> None:
    transformer(
        folder,
        "Ideogram4Transformer2DModel",
        **HEADS,
        in_channels=16,
        num_layers=3,
        intermediate_size=32,
        adaln_dim=8,
        llm_features_dim=13 * 12,
        mrope_section=(2, 2, 2),
    )
    flux2_vae(folder)
    tiny.save_scheduler(folder)
    qwen3_vl(folder, "Qwen3VLModel", layers=36, width=12)
    tiny.save_index(folder, "Ideogram4Pipeline")


@saver("ernie-image")
def _ernie(folder: Path) -> None:
    transformer(
        folder,
        "ErnieImageTransformer2DModel",
        hidden_size=32,
        num_attention_heads=2,
        num_layers=3,
        ffn_hidden_size=32,
        in_channels=16,
        out_channels=16,
        text_in_dim=TEXT,
        rope_axes_dim=ROTARY,
    )
    flux2_vae(folder)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder)
    encoder(folder, "Qwen3Model")  # for Mistral 3, whose layers are many
    tiny.save_index(folder, "ErnieImagePipeline")


@saver("omnigen")
def _omnigen(folder: Path) -> None:
    transformer(
        folder,
        "OmniGenTransformer2DModel",
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        num_layers=3,
        vocab_size=29,
        pad_token_id=0,
        time_step_dim=16,
        pos_embed_max_size=16,
        rope_scaling={"short_factor": [1.0] * 8, "long_factor": [1.0] * 8},
    )
    tiny.save_vae(folder, channels=4, scaling_factor=0.2)
    tiny.save_scheduler(folder, invert_sigmas=True, num_train_timesteps=1)
    tiny.save_letters(folder)
    tiny.save_index(folder, "OmniGenPipeline")
