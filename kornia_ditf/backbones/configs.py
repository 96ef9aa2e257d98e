"""Published configurations of the built-in families, for planning without network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Architecture = Mapping[str, Mapping[str, Any]]

_VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_VAE_16: dict[str, Any] = {
    **_VAE,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_XL_2: dict[str, Any] = {
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "patch_size": 2,
}


def dit(sample_size: int) -> Architecture:
    """Describe DiT-XL/2 for latents of this many cells a side."""
    own = {"norm_type": "ada_norm_zero", "num_embeds_ada_norm": 1000, "sample_size": sample_size}
    return {"transformer": {**_XL_2, **own}, "vae": _VAE}


def pixart(sample_size: int, *, sizes: bool) -> Architecture:
    """Describe PixArt for latents of this many cells a side, with or without size conditions."""
    own = {
        "norm_type": "ada_norm_single",
        "cross_attention_dim": 1152,
        "caption_channels": 4096,
        "sample_size": sample_size,
        "use_additional_conditions": sizes,
    }
    return {"transformer": {**_XL_2, **own}, "vae": _VAE}


def sd3(layers: int, *, positions: int, dual: int = 0, qk_norm: bool = True) -> Architecture:
    """Describe an SD3 whose width is 64 times its depth; `dual` blocks have a second attention."""
    transformer = {
        "num_layers": layers,
        "num_attention_heads": layers,
        "attention_head_dim": 64,
        "in_channels": 16,
        "out_channels": 16,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 64 * layers,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": positions,
        "dual_attention_layers": list(range(dual)),
        "qk_norm": "rms_norm" if qk_norm else None,
        "sample_size": 128,
        "patch_size": 2,
    }
    return {"transformer": transformer, "vae": _VAE_16}


def flux(*, guidance: bool) -> Architecture:
    """Describe FLUX.1, with or without an embedding of the guidance scale."""
    transformer = {
        "num_layers": 19,
        "num_single_layers": 38,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "in_channels": 64,
        "patch_size": 1,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": guidance,
    }
    return {"transformer": transformer, "vae": _VAE_16}
