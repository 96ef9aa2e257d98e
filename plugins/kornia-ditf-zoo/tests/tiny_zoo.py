"""Tiny random checkpoints of every family, in the real layout, with the real kinds of encoders.

A model is one entry of a table (`tiny_model`): its transformer's configuration and its other parts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kornia_ditf_zoo.catalogue import SPECS
from torch import nn

from kornia_ditf.loading.weights import without_deprecations, without_progress_bars
from kornia_ditf.testing import tiny

Part = Callable[[Path], object]
"""Saves a part of a checkpoint in its folder."""
SPEC = {spec.name: spec for spec in SPECS}
SAVERS: dict[str, Part] = {}

TEXT = 24  # width of every text encoder's embedding
ROTARY = (4, 6, 6)
# Sizes by the names that diffusers' classes have for them; a model says what differs.
TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 3,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "hidden_size": 32,
    "dim": 32,
    "n_heads": 2,
    "n_layers": 3,
    "n_refiner_layers": 1,
    "intermediate_size": 32,
    "ffn_dim": 64,
    "freq_dim": 16,
    "time_embed_dim": 8,
    "axes_dims": ROTARY,
    "axes_dims_rope": ROTARY,
    "rope_dim_list": ROTARY,
    "rope_max_seq_len": 32,
    "caption_channels": TEXT,
    "cap_feat_dim": TEXT,
    "context_in_dim": TEXT,
    "cross_attention_dim": 32,
    "joint_attention_dim": TEXT,
    "text_dim": TEXT,
    "text_embed_dim": TEXT,
    "text_embed_2_dim": TEXT,
}
VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": (8,) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "base_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "z_dim": 4,
}
LANGUAGE: dict[str, Any] = {
    "vocab_size": 29,
    "hidden_size": TEXT,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}
PROCESSOR = ["transformers", "Qwen3VLProcessor"]


def tiny_model(name: str, config: Mapping[str, Any], *parts: Part, **index: Any) -> None:
    """Note how the tiny model of a backbone is saved.

    Args:
        name: of the backbone, whose spec says which transformer and which pipeline it has.
        config: of the transformer.
        parts: the VAE, text encoders and the like; without a scheduler, that of most is saved.
        index: what model_index.json holds besides.
    """

    def save(folder: Path) -> None:
        family: Any = SPEC[name].load
        model = made(family.__self__.transformer_class, TRANSFORMER, config)
        for weights in model.parameters():
            if weights.ndim == 3:  # of experts, which are made without values
                nn.init.normal_(weights, std=0.05)
        tiny.save_transformer(model, folder)
        for part in parts:
            part(folder)
        if not (folder / "scheduler").exists():
            tiny.save_scheduler(folder)
        tiny.save_index(folder, SPEC[name].pipeline, **index)

    SAVERS[name] = save


def made(class_name: str, sizes: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """Make one of diffusers' models, of those sizes that it has."""
    import diffusers

    kind: Any = getattr(diffusers, class_name)
    taken = inspect.signature(kind.__init__).parameters
    known = {name: size for name, size in sizes.items() if name in taken}
    if "num_single_layers" in taken:
        known["num_layers"] = 2
    return kind(**{**known, **config})


def save_tiny(name: str, folder: Path) -> Path:
    """Save a tiny random model with the architecture of a backbone."""
    with tiny.seeded(), without_deprecations(), without_progress_bars():
        SAVERS[name](folder)
    return folder


def scheduler(name: str = "FlowMatchEulerDiscreteScheduler", **config: Any) -> Part:
    """Describe one of diffusers' schedulers."""
    return partial(tiny.save_scheduler, name=name, **config)


def kl(channels: int = 16, **config: Any) -> Part:
    """Describe an AutoencoderKL."""
    return partial(tiny.save_vae, channels=channels, **{"scaling_factor": 0.4, **config})


def letters(suffix: str = "", **options: Any) -> Part:
    """Describe a tokenizer that reads letter by letter."""
    return partial(tiny.save_letters, suffix=suffix, **options)


def moved(old: str, new: str) -> Part:
    """Describe that a part is kept in another folder."""
    return lambda folder: (folder / old).rename(folder / new)


def vae(class_name: str, **config: Any) -> Part:
    """Describe a VAE whose convolutions look at their middle most, as trained ones do."""
    return partial(_save_vae, class_name=class_name, **config)


@torch.no_grad()
def _save_vae(folder: Path, *, class_name: str, **config: Any) -> None:
    model = made(class_name, VAE, config)
    for buffer in model.buffers():  # statistics of channels
        if buffer.is_floating_point():
            buffer.copy_(0.5 + torch.rand_like(buffer))
    for parameter in model.parameters():
        if parameter.ndim > 3 and parameter.shape[-1] == 3:
            middle = torch.randn_like(parameter[..., 1, 1]) / parameter.shape[1] ** 0.5
            parameter.mul_(0.2)[..., 1, 1] = middle
    model.save_pretrained(folder / "vae")


def encoder(class_name: str, *, suffix: str = "", **config: Any) -> Part:
    """Describe a text encoder of one of transformers' classes, without tokenizer."""
    return partial(_save_encoder, class_name=class_name, suffix=suffix, **config)


def _save_encoder(
    folder: Path, *, class_name: str, suffix: str, width: int = TEXT, **config: Any
) -> None:
    import transformers

    kind: Any = getattr(transformers, class_name)
    ends = {"bos_token_id": 1, "eos_token_id": 1, "max_position_embeddings": 2048}
    sizes = {**LANGUAGE, **ends, "hidden_size": width, **config}
    kind(kind.config_class(**sizes)).save_pretrained(folder / f"text_encoder{suffix}")


def t5(suffix: str = "", class_name: str = "T5EncoderModel") -> Part:
    """Describe a T5 or UMT5 encoder with its tokenizer."""
    return partial(_save_t5, suffix=suffix, class_name=class_name)


def _save_t5(folder: Path, *, suffix: str, class_name: str) -> None:
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


KL_SHIFTED = kl(shift_factor=0.1)
KL_4 = kl(4, scaling_factor=0.2)
CHANNELS = {"latents_mean": [0.1, -0.2, 0.3, -0.4], "latents_std": [1.1, 0.9, 1.2, 0.8]}
SIX_CHANNELS = {"z_dim": 6, "latents_mean": [0.1] * 6, "latents_std": [1.1] * 6}
QWEN_VAE = vae("AutoencoderKLQwenImage", **CHANNELS)
WAN_VAE = vae("AutoencoderKLWan", **CHANNELS)
DEEP_COMPRESSION = vae(
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
FLUX2_VAE = vae("AutoencoderKLFlux2")


def qwen_vl(folder: Path) -> None:
    """Save a Qwen2.5-VL with its tokenizer."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config={
            **LANGUAGE,
            "vocab_size": tiny.save_letters(folder),
            "head_dim": 12,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "rope_parameters": {"type": "default", "mrope_section": [2, 2, 2]},
        },
        vision_config={"depth": 1, "hidden_size": 8, "num_heads": 2, "out_hidden_size": TEXT},
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder / "text_encoder")


def qwen3_vl(
    class_name: str = "Qwen3VLForConditionalGeneration",
    *,
    layers: int = 2,
    width: int = TEXT,
    tokenizer: str = "tokenizer",
) -> Part:
    """Describe a Qwen3-VL with its tokenizer, which knows where images stand."""
    return partial(
        _save_qwen3_vl, class_name=class_name, layers=layers, width=width, tokenizer=tokenizer
    )


def _save_qwen3_vl(
    folder: Path, *, class_name: str, layers: int, width: int, tokenizer: str
) -> None:
    import transformers

    tiny.save_letters(folder, chat_template=CHAT, additional_special_tokens=["<|image_pad|>"])
    (folder / "tokenizer").rename(folder / tokenizer)
    config = transformers.Qwen3VLConfig(
        text_config={
            **LANGUAGE,
            "vocab_size": 32,
            "hidden_size": width,
            "intermediate_size": 16,
            "num_hidden_layers": layers,
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
