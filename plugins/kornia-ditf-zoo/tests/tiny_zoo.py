"""Tiny random checkpoints of every family, in the real layout, with the real kinds of encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kornia_ditf.loading.weights import without_deprecations, without_progress_bars
from kornia_ditf.testing import tiny

TEXT = 24  # width of every text encoder's embedding
HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16}
ROTARY = (4, 6, 6)
PROCESSOR = ["transformers", "Qwen3VLProcessor"]
SAVERS: dict[str, Callable[[Path], None]] = {}


def saver(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Note the function that saves the tiny model of a backbone, by the backbone's name."""

    def note(save: Callable[[Path], None]) -> Callable[[Path], None]:
        SAVERS[name] = save
        return save

    return note


def save_tiny(name: str, folder: Path) -> Path:
    """Save a tiny random model with the architecture of a backbone."""
    with tiny.seeded(), without_deprecations(), without_progress_bars():
        SAVERS[name](folder)
    return folder


def transformer(folder: Path, class_name: str, **config: Any) -> None:
    """Save a transformer of a class."""
    import diffusers

    tiny.save_transformer(getattr(diffusers, class_name)(**config), folder)


@torch.no_grad()
def vae(folder: Path, class_name: str, **config: Any) -> None:
    """Save a VAE of a class, whose convolutions look at their middle most, as trained ones do."""
    import diffusers

    model = getattr(diffusers, class_name)(**config)
    for buffer in model.buffers():  # statistics of channels
        if buffer.is_floating_point():
            buffer.copy_(0.5 + torch.rand_like(buffer))
    for parameter in model.parameters():
        if parameter.ndim > 3 and parameter.shape[-1] == 3:
            middle = torch.randn_like(parameter[..., 1, 1]) / parameter.shape[1] ** 0.5
            parameter.mul_(0.2)[..., 1, 1] = middle
    model.save_pretrained(folder / "vae")


def encoder(
    folder: Path, class_name: str, *, suffix: str = "", width: int = TEXT, **config: Any
) -> None:
    """Save a text encoder of one of transformers' classes, without tokenizer."""
    import transformers

    kind: Any = getattr(transformers, class_name)
    sizes: dict[str, Any] = {
        "vocab_size": 29,
        "hidden_size": width,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "max_position_embeddings": 2048,
        **config,
    }
    kind(kind.config_class(**sizes)).save_pretrained(folder / f"text_encoder{suffix}")


def t5(folder: Path, suffix: str = "", class_name: str = "T5EncoderModel") -> None:
    """Save a T5 or UMT5 encoder with its tokenizer."""
    import transformers

    kind: Any = getattr(transformers, class_name)
    size = tiny.save_letters(folder, suffix)
    config = kind.config_class(
        vocab_size=size, d_model=TEXT, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )
    kind(config).save_pretrained(folder / f"text_encoder{suffix}")


# A chat is its messages' text, with markers around, as far as letters can tell.
CHAT = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['role'] ~ m['content'] }}"
    "{% else %}{{ m['role'] ~ m['content'][0]['text'] }}{% endif %}{% endfor %}"
)


def deep_compression(folder: Path) -> None:
    """Save an AutoencoderDC."""
    vae(
        folder,
        "AutoencoderDC",
        latent_channels=8,
        encoder_block_out_channels=(8,) * 6,
        decoder_block_out_channels=(8,) * 6,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
        scaling_factor=0.4,
    )


VIDEO: dict[str, Any] = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "z_dim": 4}
CHANNELS = {"latents_mean": [0.1, -0.2, 0.3, -0.4], "latents_std": [1.1, 0.9, 1.2, 0.8]}


def qwen_vl(folder: Path) -> None:
    """Save a Qwen2.5-VL with its tokenizer."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": tiny.save_letters(folder),
            "hidden_size": TEXT,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "rope_parameters": {"type": "default", "mrope_section": [2, 2, 2]},
        },
        vision_config={"depth": 1, "hidden_size": 8, "num_heads": 2, "out_hidden_size": TEXT},
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder / "text_encoder")


def qwen3_vl(folder: Path, class_name: str, *, layers: int = 2, width: int = TEXT) -> None:
    """Save a Qwen3-VL of a class with its tokenizer, which knows where images stand."""
    import transformers

    tiny.save_letters(folder, chat_template=CHAT, additional_special_tokens=["<|image_pad|>"])
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": 32,
            "hidden_size": width,
            "intermediate_size": 16,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_heads": 2,
            "out_hidden_size": width,
            "deepstack_visual_indexes": [0],
        },
    )
    getattr(transformers, class_name)(config).save_pretrained(folder / "text_encoder")


def flux2_vae(folder: Path) -> None:
    """Save FLUX.2's VAE, which normalises packed latents."""
    vae(
        folder,
        "AutoencoderKLFlux2",
        block_out_channels=(8,) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    )
