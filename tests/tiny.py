"""Tiny random checkpoints of the real architectures, saved in the real diffusers layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHARD_SIZE = "40KB"

DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 4,
    "sample_size": 8,
    "patch_size": 2,
    "norm_type": "ada_norm_zero",
    "num_embeds_ada_norm": 10,
}
PIXART = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 4,
    "cross_attention_dim": 48,
    "caption_channels": 24,
    "sample_size": 8,
    "patch_size": 2,
    "norm_type": "ada_norm_single",
    "use_additional_conditions": False,
}
SD3 = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 4,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 32,
    "pos_embed_max_size": 24,
}
FLUX = {
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 16,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 6, 6),
}
NANO = {
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": 4,
    "num_layers": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_cross_attention_heads": 1,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 32,
    "caption_channels": 8,
    "sample_size": 8,
}
# What the published DiT and PixArt repositories still say, from before they had own classes.
FORMER = {
    "_class_name": "Transformer2DModel",
    "_diffusers_version": "0.12.0",
    "double_self_attention": False,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "use_linear_projection": False,
}
DDPM = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}


def save_tiny(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny random model of a family, sharded, with all that its repository holds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _SAVERS[family](folder)
    return folder


def _dit(folder: Path) -> None:
    import diffusers

    labels = {str(index): f"class{index}, other name {index}" for index in range(10)}
    _save_transformer(diffusers.DiTTransformer2DModel(**DIT), folder, FORMER)
    _save_vae(folder, channels=4)
    diffusers.DDIMScheduler(**DDPM).save_pretrained(folder / "scheduler")
    _save_index(folder, "DiTPipeline", scheduler="DDIMScheduler", id2label=labels)


def _pixart(pipeline: str, **changes: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        import diffusers

        model = diffusers.PixArtTransformer2DModel(**{**PIXART, **changes})
        _save_transformer(model, folder, FORMER)
        _save_vae(folder, channels=4)
        diffusers.DPMSolverMultistepScheduler(**DDPM).save_pretrained(folder / "scheduler")
        _save_t5(folder, "")
        _save_index(folder, pipeline, scheduler="DPMSolverMultistepScheduler", encoders=("", "t5"))

    return save


def _sd3(**changes: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        import diffusers

        _save_transformer(diffusers.SD3Transformer2DModel(**{**SD3, **changes}), folder)
        _save_vae(folder, channels=16, shift_factor=0.06, scaling_factor=1.5)
        _save_flow_scheduler(folder)
        # Widths as in the real one: the two CLIP embeddings joined fit into T5's.
        _save_clip(folder, "", width=8, projection=16)
        _save_clip(folder, "_2", width=16, projection=16)
        _save_t5(folder, "_3")
        _save_index(
            folder,
            "StableDiffusion3Pipeline",
            scheduler="FlowMatchEulerDiscreteScheduler",
            encoders=("", "clip-projection", "_2", "clip-projection", "_3", "t5"),
        )

    return save


def _flux(guidance: bool) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        import diffusers

        config = {**FLUX, "guidance_embeds": guidance}
        _save_transformer(diffusers.FluxTransformer2DModel(**config), folder)
        _save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
        _save_flow_scheduler(folder)
        _save_clip(folder, "", width=16, projection=None)
        _save_t5(folder, "_2")
        _save_index(
            folder,
            "FluxPipeline",
            scheduler="FlowMatchEulerDiscreteScheduler",
            encoders=("", "clip", "_2", "t5"),
        )

    return save


def _nano(folder: Path) -> None:
    import diffusers

    _save_transformer(diffusers.SanaTransformer2DModel(**NANO), folder)
    _save_flow_scheduler(folder)
    _save_index(folder, "NanoPipeline", scheduler="FlowMatchEulerDiscreteScheduler", vae=False)


_SAVERS: dict[str, Callable[[Path], None]] = {
    "dit": _dit,
    "pixart-alpha": _pixart("PixArtAlphaPipeline"),
    "pixart-alpha-1024": _pixart("PixArtAlphaPipeline", use_additional_conditions=True),
    "pixart-sigma": _pixart("PixArtSigmaPipeline"),
    "sd3": _sd3(),
    "sd3.5-medium": _sd3(dual_attention_layers=(0, 1), qk_norm="rms_norm"),
    "flux": _flux(guidance=True),
    "flux-schnell": _flux(guidance=False),
    "nano": _nano,
}
FAMILIES = tuple(_SAVERS)


@torch.no_grad()
def _save_transformer(
    model: Any, folder: Path, published: Mapping[str, Any] = MappingProxyType({})
) -> None:
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases and gains are constant at first
            parameter.add_(0.3 * torch.randn_like(parameter))
        elif not parameter.any():  # and the modulation of adaLN-zero is nothing
            nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / "transformer", max_shard_size=SHARD_SIZE)
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **published}))


def _save_vae(folder: Path, *, channels: int, **factors: float) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=64,
        use_quant_conv=channels == 4,
        use_post_quant_conv=channels == 4,
        **factors,
    )
    vae.save_pretrained(folder / "vae")


def _save_flow_scheduler(folder: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")


def _save_clip(folder: Path, suffix: str, *, width: int, projection: int | None) -> None:
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    end = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    pieces = [*LETTERS, *(letter + "</w>" for letter in LETTERS)]
    vocabulary = {**end, **{piece: 2 + index for index, piece in enumerate(pieces)}}
    tokenizer_folder = folder / f"tokenizer{suffix}"
    tokenizer_folder.mkdir(parents=True)
    (tokenizer_folder / "vocab.json").write_text(json.dumps(vocabulary))
    (tokenizer_folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(tokenizer_folder / "vocab.json"),
        str(tokenizer_folder / "merges.txt"),
        model_max_length=77,
    )
    tokenizer.save_pretrained(tokenizer_folder)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=projection or width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)
    model.save_pretrained(folder / f"text_encoder{suffix}")


def _save_t5(folder: Path, suffix: str) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = ["<pad>", "</s>", "<unk>", *LETTERS]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    config = T5Config(
        vocab_size=len(words),
        d_model=24,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(folder / f"text_encoder{suffix}")


_ENCODERS = {
    "clip": (["transformers", "CLIPTextModel"], ["transformers", "CLIPTokenizer"]),
    "clip-projection": (
        ["transformers", "CLIPTextModelWithProjection"],
        ["transformers", "CLIPTokenizer"],
    ),
    "t5": (["transformers", "T5EncoderModel"], ["transformers", "PreTrainedTokenizerFast"]),
}


def _save_index(
    folder: Path,
    pipeline: str,
    *,
    scheduler: str,
    encoders: tuple[str, ...] = (),
    vae: bool = True,
    **more: Any,
) -> None:
    config = json.loads((folder / "transformer" / "config.json").read_text())
    index: dict[str, Any] = {
        "_class_name": pipeline,
        "transformer": ["diffusers", config["_class_name"]],
        "scheduler": ["diffusers", scheduler],
    }
    if vae:
        index["vae"] = ["diffusers", "AutoencoderKL"]
    for suffix, kind in zip(encoders[::2], encoders[1::2], strict=True):
        index[f"text_encoder{suffix}"], index[f"tokenizer{suffix}"] = _ENCODERS[kind]
    (folder / "model_index.json").write_text(json.dumps({**index, **more}, indent=1))
