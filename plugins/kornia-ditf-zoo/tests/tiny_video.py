"""Tiny models of the video families."""

from __future__ import annotations

from pathlib import Path

from tiny_zoo import (
    CHANNELS,
    HEADS,
    ROTARY,
    TEXT,
    VIDEO,
    encoder,
    saver,
    t5,
    transformer,
    vae,
)

from kornia_ditf.testing import tiny


@saver("wan2.1-1.3b")
def _wan(folder: Path) -> None:
    transformer(
        folder,
        "WanTransformer3DModel",
        **HEADS,
        in_channels=4,
        out_channels=4,
        text_dim=TEXT,
        freq_dim=16,
        ffn_dim=64,
        num_layers=3,
        rope_max_seq_len=32,
    )
    vae(folder, "AutoencoderKLWan", **VIDEO, **CHANNELS)
    tiny.save_scheduler(folder, "UniPCMultistepScheduler", use_flow_sigmas=True)
    t5(folder, class_name="UMT5EncoderModel")
    tiny.save_index(folder, "WanPipeline", transformer_2=[None, None])


@saver("ltx-video")
def _ltx(folder: Path) -> None:
    transformer(
        folder,
        "LTXVideoTransformer3DModel",
        **HEADS,
        in_channels=8,
        out_channels=8,
        cross_attention_dim=32,
        num_layers=3,
        caption_channels=TEXT,
    )
    vae(
        folder,
        "AutoencoderKLLTXVideo",
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
    )
    tiny.save_scheduler(folder)
    t5(folder)
    tiny.save_index(folder, "LTXPipeline")


def _cogvideox(folder: Path, *, rotary: bool) -> None:
    transformer(
        folder,
        "CogVideoXTransformer3DModel",
        **HEADS,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=TEXT,
        num_layers=3,
        sample_width=12,
        sample_height=8,
        sample_frames=9,
        use_rotary_positional_embeddings=rotary,
    )
    vae(
        folder,
        "AutoencoderKLCogVideoX",
        latent_channels=4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_height=64,
        sample_width=96,
    )
    tiny.save_scheduler(
        folder, "CogVideoXDDIMScheduler", snr_shift_scale=3.0, rescale_betas_zero_snr=True
    )
    t5(folder)
    tiny.save_index(folder, "CogVideoXPipeline")


@saver("cogvideox-2b")
def _cogvideox_2b(folder: Path) -> None:
    _cogvideox(folder, rotary=False)


@saver("cogvideox-5b")
def _cogvideox_5b(folder: Path) -> None:
    _cogvideox(folder, rotary=True)


@saver("hunyuanvideo")
def _hunyuanvideo(folder: Path) -> None:
    transformer(
        folder,
        "HunyuanVideoTransformer3DModel",
        **HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=TEXT,
        pooled_projection_dim=16,
        rope_axes_dim=ROTARY,
    )
    vae(
        folder,
        "AutoencoderKLHunyuanVideo",
        latent_channels=4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
    )
    tiny.save_scheduler(folder)
    tiny.save_letters(folder)
    encoder(folder, "LlamaModel", num_hidden_layers=3)
    tiny.save_clip(folder, "_2")
    tiny.save_index(folder, "HunyuanVideoPipeline")


@saver("mochi-1")
def _mochi(folder: Path) -> None:
    transformer(
        folder,
        "MochiTransformer3DModel",
        num_attention_heads=8,  # as many as pool its text
        attention_head_dim=4,
        pooled_projection_dim=16,
        in_channels=4,
        num_layers=3,
        text_embed_dim=TEXT,
        time_embed_dim=16,
    )
    vae(
        folder,
        "AutoencoderKLMochi",
        latent_channels=4,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
        **CHANNELS,
    )
    tiny.save_scheduler(folder, invert_sigmas=True)
    t5(folder)
    tiny.save_index(folder, "MochiPipeline")
