"""Stable Diffusion 3 and 3.5: text in a stream of its own, dual attention in 3.5-medium."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kornia_ditf.backbones import configs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.spec import NEUTRAL_RULE, BackboneSpec
from kornia_ditf.tap import ADALN_ZERO


class SD3Backbone(DiffusersBackbone):
    """SD3-medium, SD3.5-medium and SD3.5-large."""

    transformer_class = "SD3Transformer2DModel"
    pipeline_class = "StableDiffusion3Pipeline"
    # Blocks of dual attention have nine chunks; the first two mean the same.
    streams = (replace(ADALN_ZERO, attention="attn"),)
    time = "t"
    positions_from = "pos_embed_max_size"
    prompt_outputs = ("prompt_embeds", None, "pooled_prompt_embeds")
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    }


def _spec(name: str, blocks: int, architecture: configs.Architecture, **known: Any) -> BackboneSpec:
    repo = name.replace("sd", "stable-diffusion-", 1)
    return SD3Backbone.spec(
        name=name,
        repo=f"stabilityai/{repo}" + ("-diffusers" if name == "sd3-medium" else ""),
        architecture=architecture,
        blocks=blocks,
        width=64 * blocks,
        license="Stability AI Community License",
        **known,
    )


_SD35: dict[str, Any] = {
    "massive_channels": (676,),
    "source": f"{NEUTRAL_RULE.replace('found in each image', 'as the paper has them')} "
    "(second-hand: summaries of arXiv 2505.18584, which name one channel, 676, for SD3.5 and not "
    "its size; check with kornia-ditf inspect)",
}


SPECS: tuple[BackboneSpec, ...] = (
    _spec("sd3-medium", 24, configs.sd3(24, positions=192, qk_norm=False)),
    _spec("sd3.5-medium", 24, configs.sd3(24, positions=384, dual=13), **_SD35),
    _spec("sd3.5-large", 38, configs.sd3(38, positions=192), **_SD35),
)
