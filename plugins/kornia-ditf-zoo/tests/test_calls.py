"""Every transformer is called as its own pipeline calls it: time, packing, positions, texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from kornia_ditf_zoo.catalogue import SPECS
from tiny_zoo import SAVERS
from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.loading.weights import without_deprecations, without_progress_bars
from kornia_ditf.types import Conditioning

SPEC = {spec.name: spec for spec in SPECS}
Checkpoints = Callable[[str], Path]
PROMPT = "a cat, and a dog"


class Called(Exception):
    """The transformer was called: there the pipeline ends."""


# What a pipeline wants besides a prompt, a size and latents; by its class.
OPTIONS: dict[str, dict[str, Any]] = {
    "HunyuanDiTPipeline": {"use_resolution_binning": False},
    "SanaPipeline": {"use_resolution_binning": False},
    "PRXPipeline": {"use_resolution_binning": False},
    "WanPipeline": {"num_frames": 1},
    "LTXPipeline": {"num_frames": 1},
    "CogVideoXPipeline": {"num_frames": 1},
    "QwenImagePipeline": {"true_cfg_scale": 1.0},
    "ZImagePipeline": {"guidance_scale": 0.0},
    "Flux2Pipeline": {"guidance_scale": 4.0},
    "LongCatImagePipeline": {"enable_prompt_rewrite": False},
}
# Those whose users hand over latents packed 2 x 2.
PACKED = (
    "BriaPipeline",
    "ChromaPipeline",
    "LongCatImagePipeline",
    "OvisImagePipeline",
    "QwenImagePipeline",
)


def packed(pipeline: Any, latent: Tensor) -> Tensor:
    """Shape a latent (1, C, h, w) as a pipeline wants it from its user."""
    name = type(pipeline).__name__
    if name in PACKED:
        return pipeline._pack_latents(latent, *latent.shape)
    if name == "LTXPipeline":
        return pipeline._pack_latents(latent.unsqueeze(2))
    if name == "WanPipeline":
        return latent.unsqueeze(2)
    if name == "CogVideoXPipeline":
        return latent.unsqueeze(1)
    return latent


def call_of(pipeline: Any, latent: Tensor, size: tuple[int, int]) -> Mapping[str, Any]:
    """Run a pipeline until it calls its transformer, and give that call's arguments."""
    seen: dict[str, Any] = {}
    transformer = pipeline.transformer

    def note(_: object, args: Any, kwargs: Any) -> None:
        bound = inspect.signature(transformer.forward).bind(*args, **kwargs)
        bound.apply_defaults()
        seen.update(bound.arguments)
        raise Called

    transformer.register_forward_pre_hook(note, with_kwargs=True)
    pipeline.set_progress_bar_config(disable=True)
    # HiDream scales every size to the area that it was trained on.
    pipeline.default_sample_size = (size[0] * size[1] / 64) ** 0.5 + 1e-3
    options = {"guidance_scale": 1.0, "num_inference_steps": 4}
    with pytest.raises(Called):
        pipeline(
            prompt=PROMPT,
            height=size[0],
            width=size[1],
            latents=packed(pipeline, latent),
            **{**options, **OPTIONS.get(type(pipeline).__name__, {})},
        )
    return seen


@pytest.mark.parametrize("name", SAVERS)
@torch.no_grad()
def test_the_transformer_is_called_as_its_pipeline_calls_it(
    name: str, tiny_zoo: Checkpoints
) -> None:
    import diffusers

    folder = tiny_zoo(name)
    backbone = SPEC[name].load(folder)
    assert isinstance(backbone, DiffusersBackbone)
    rows, columns = 4 * backbone.patch_size, 6 * backbone.patch_size
    latent = torch.randn(
        1, backbone.latent_channels, rows, columns, generator=torch.Generator().manual_seed(0)
    )
    size = (rows * backbone.pixels_per_cell, columns * backbone.pixels_per_cell)
    with without_progress_bars(), without_deprecations():
        kind: Any = getattr(diffusers, SPEC[name].pipeline)
        pipeline = kind.from_pretrained(folder, local_files_only=True)
    expected = call_of(pipeline, latent, size)

    timestep = float(pipeline.scheduler.timesteps[0])
    conditioning = Conditioning(backbone.encode_prompts(pipeline, [PROMPT]))
    found = dict(backbone.transformer_inputs(latent, timestep, conditioning))
    if name == "chroma1-hd":  # its pipeline pads; the mask says what is to be left out
        expected = without_padding(expected)
    if name == "qwen-image":
        assert expected["encoder_hidden_states_mask"] is None
    for argument, value in found.items():
        compare(argument, value, expected[argument])


def without_padding(call: Mapping[str, Any]) -> dict[str, Any]:
    """Cut off the texts' padding that Chroma's mask excludes."""
    words = call["encoder_hidden_states"].shape[1]
    length = int(call["attention_mask"][0, :words].sum())
    text = call["encoder_hidden_states"][:, :length]
    return {**call, "encoder_hidden_states": text, "txt_ids": call["txt_ids"][:length]}


def compare(name: str, found: Any, expected: Any) -> None:
    """Compare one argument with that of the pipeline."""
    if isinstance(found, Tensor):
        assert isinstance(expected, Tensor), f"the pipeline gives no {name}"
        if name in ("img_ids", "txt_ids") and expected.ndim == 3:
            expected = expected[0]  # as the transformer does
        if name.startswith("encoder_"):
            expected = expected[:, : found.shape[1]]  # padding that is masked was cut off
        torch.testing.assert_close(
            found.double(), expected.double(), rtol=0, atol=1e-6, msg=lambda m: f"{name}: {m}"
        )
    elif isinstance(found, Sequence) and not isinstance(found, str) and len(found):
        assert len(found) == len(expected), name
        for one, other in zip(found, expected, strict=True):
            compare(name, one, other)
    else:
        assert found == expected, name
