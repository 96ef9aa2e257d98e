"""Every UNet, with the preset of DIFT's evaluation that it was published for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from kornia_ditf import DescriptorSpec
from kornia_ditf.dense import InMemory
from kornia_ditf.loading.memory import LoadedModel
from kornia_ditf_sd.descriptor import DIFT, DIFTConfig
from kornia_ditf_sd.loading import load_dift, use_loaded

_DIFT = "DIFT's released evaluation on {} (github.com/Tsingularity/dift, README.md)"
_SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_SD21 = "stabilityai/stable-diffusion-2-1"
_SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


def _load(preset: Mapping[str, Any], **given: Any) -> DIFT:
    return load_dift(**_changed(preset, given))


def _use(preset: Mapping[str, Any], loaded: LoadedModel, **given: Any) -> DIFT:
    own = {name: value for name, value in preset.items() if name not in ("source", "weights")}
    return use_loaded(loaded, **_changed(own, given))


def _changed(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    # A long side that is given comes before the preset's size.
    return {**preset, **({"size": None} if "long_side" in given else {}), **given}


def _spec(
    name: str,
    repo: str,
    source: str,
    *,
    width: int = 1280,
    pixels: int = 16,
    licence: str = "CreativeML OpenRAIL++-M",
    protocol: str = "",
    **preset: Any,
) -> DescriptorSpec:
    text = {_SD15: 768, _SD21: 1024, _SDXL: 2048}[repo]
    preset["source"] = repo
    return DescriptorSpec(
        name=name,
        repo=repo,
        load=partial(_load, preset),
        in_memory=InMemory(
            model="UNet2DConditionModel",
            make=partial(_use, preset),
            pipeline=f"StableDiffusion{'XL' * (repo == _SDXL)}Pipeline",
            vae="AutoencoderKL",
            config={"cross_attention_dim": text},
        ),
        width=width,
        pixels_per_token=pixels,
        source=source,
        license=licence,
        protocol=protocol,
        options=lambda: (load_dift, DIFTConfig),
    )


def _clean(
    base: str,
    repo: str,
    licence: str = "MIT (its model card); base: CreativeML OpenRAIL++-M",
    **preset: Any,
) -> DescriptorSpec:
    return _spec(
        f"cleandift-{base}",
        repo,
        "CleanDIFT (arXiv 2412.03439), its notebook on correspondence: the clean latent, the "
        "second up block; the timestep is the one its training began with, since the learned one "
        "is not in the file of the UNet (second-hand: public copies of its code and model card)",
        licence=licence,
        weights=f"CompVis/cleandift/cleandift_{base.replace('.', '')}_unet.safetensors",
        up_ft_index=1,
        timestep=261,
        ensemble=1,
        clean=True,
        **preset,
    )


SPECS = (
    _spec(
        "sd2.1",
        _SD21,
        _DIFT.format("SPair-71k") + "; it tells the model 'a photo of a CATEGORY'",
        protocol="dift-spair",
        up_ft_index=1,
        timestep=261,
        ensemble=8,
        size=(768, 768),
    ),
    _spec(
        "sd2.1-hpatches",
        _SD21,
        _DIFT.format("HPatches"),
        protocol="dift-hpatches",
        width=640,
        pixels=8,
        up_ft_index=2,
        timestep=0,
        ensemble=8,
        size=(768, 768),
    ),
    _spec(
        "sd2.1-davis",
        _SD21,
        _DIFT.format("DAVIS-2017") + "; it squashes 854 x 480 frames with size=(480, 832)",
        protocol="davis-dift",
        width=640,
        pixels=8,
        up_ft_index=2,
        timestep=51,
        ensemble=8,
    ),
    _spec(
        "sd1.5",
        _SD15,
        "uncalibrated; DIFT's numbers for Stable Diffusion 2.1 on SPair-71k, at this model's own "
        "training resolution",
        licence="CreativeML OpenRAIL-M",
        up_ft_index=1,
        timestep=261,
        ensemble=8,
        long_side=512,
    ),
    _spec(
        "sdxl",
        _SDXL,
        "uncalibrated; neutral rule: the middle up block, timestep 250, the training resolution, "
        "one noise draw",
        width=640,
        pixels=8,
        up_ft_index=1,
        timestep=250,
        ensemble=1,
        long_side=1024,
    ),
    _clean("sd2.1", _SD21, size=(768, 768)),
    _clean(
        "sd1.5", _SD15, licence="MIT (its model card); base: CreativeML OpenRAIL-M", size=(512, 512)
    ),
)
