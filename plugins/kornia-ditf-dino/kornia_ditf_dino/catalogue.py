"""Every published DINO, DINOv2 and DINOv3, with its preset."""

from __future__ import annotations

from functools import partial
from typing import Any

from kornia_ditf import DescriptorSpec
from kornia_ditf_dino.descriptor import DINOConfig
from kornia_ditf_dino.loading import load_dino

NEUTRAL_RULE = (
    "uncalibrated; neutral rule: the last layer's patch tokens after the model's own layer norm, "
    "60 tokens along the longest side"
)
_SD_DINO = (
    "sd-dino's evaluation on SPair-71k (github.com/Junyi42/sd-dino, pck_spair_pascal.py): {}; "
    "it pads images to a square, which is not done here"
)
_DINO_V1 = _SD_DINO.format(
    "keys of layer 9 at stride 4 and 224 pixels, as dino-vit-features has them before its binning"
)


def _spec(
    name: str, repo: str, width: int, patch: int, licence: str, source: str = "", **preset: Any
) -> DescriptorSpec:
    preset = preset or {"long_side": 60 * patch}
    return DescriptorSpec(
        name=name,
        repo=f"facebook/{repo}",
        load=partial(load_dino, source=f"facebook/{repo}", **preset),
        width=width,
        pixels_per_token=preset.get("stride", patch),
        source=source or NEUTRAL_RULE,
        license=licence,
        options=lambda: (load_dino, DINOConfig),
    )


def _dino(letter: str, patch: int, **preset: Any) -> DescriptorSpec:
    name, width = f"dino-vit{letter}{patch}", {"s": 384, "b": 768}[letter]
    return _spec(name, name, width, patch, "Apache-2.0", **preset)


def _dinov2(size: str, width: int, layer: int) -> tuple[DescriptorSpec, DescriptorSpec]:
    published = _SD_DINO.format(
        f"tokens of layer {layer}, the last, without the final layer norm; 840 pixels"
    )
    preset = {"layernorm": False, "long_side": 840}
    name, registers = f"dinov2-{size}", f"dinov2-with-registers-{size}"
    return (
        _spec(name, name, width, 14, "Apache-2.0", published, **preset),
        _spec(registers, registers, width, 14, "Apache-2.0"),
    )


def _dinov3(size: str, width: int) -> DescriptorSpec:
    name = f"dinov3-vit{size}"
    return _spec(name, f"{name}-pretrain-lvd1689m", width, 16, "DINOv3 License; gated")


SPECS = (
    _dino("s", 8, source=_DINO_V1, layer=9, facet="key", stride=4, long_side=224),
    _dino("s", 16),
    _dino("b", 8),
    _dino("b", 16),
    *_dinov2("small", 384, 11),
    *_dinov2("base", 768, 11),
    *_dinov2("large", 1024, 23),
    *_dinov2("giant", 1536, 39),
    _dinov3("s16", 384),
    _dinov3("s16plus", 384),
    _dinov3("b16", 768),
    _dinov3("l16", 1024),
    _dinov3("h16plus", 1280),
    _dinov3("7b16", 4096),
)
