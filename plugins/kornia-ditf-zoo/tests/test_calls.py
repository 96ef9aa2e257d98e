"""Every transformer is called as its own pipeline calls it: time, packing, positions, texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from kornia_ditf_zoo.catalogue import SPECS
from tiny_zoo import SAVERS
from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.inputs import pack
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.loading.checkpoint import Checkpoint
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
    "FluxKontextPipeline": {"guidance_scale": 3.5, "max_area": 64 * 96},
    "HunyuanImagePipeline": {"distilled_guidance_scale": 3.25},
    "GlmImagePipeline": {"prior_token_ids": torch.zeros(1, 24, dtype=torch.long)},
    "Ideogram4Pipeline": {"max_sequence_length": 64, "guidance_schedule": None},
    "Krea2Pipeline": {"guidance_scale": 0.0},
    "PRXPixelPipeline": {"use_resolution_binning": False},
}
BUILT = ("transformer", "vae", "requires_safety_checker", "feature_extractor")
# Those whose users hand over latents packed 2 x 2.
PACKED = (
    "BriaPipeline",
    "ChromaPipeline",
    "FluxKontextPipeline",
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
    if name == "Kandinsky5T2IPipeline":
        return latent.permute(0, 2, 3, 1).unsqueeze(1)
    if name in ("Krea2Pipeline", "NucleusMoEImagePipeline"):
        return pack(latent, 2)
    if name in ("BriaFiboPipeline", "Ideogram4Pipeline", "QwenImage21Pipeline"):
        return pack(latent, 1)
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
    pipeline.unconditional_transformer = transformer  # Ideogram asks for its dtype.
    pipeline.resolutions = [size[::-1]]  # Kandinsky takes the nearest of those it knows.
    options = {"guidance_scale": 1.0, "num_inference_steps": 4}
    taken = inspect.signature(type(pipeline).__call__).parameters
    options = {name: value for name, value in options.items() if name in taken}
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
    name: str, tiny_zoo: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    if name == "omnigen":
        without_torchvision(monkeypatch)

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
        modules = backbone.pipeline_modules(Checkpoint(folder), torch.float32)
        own = {part: module for part, module in modules.items() if part not in BUILT}
        pipeline = kind.from_pretrained(folder, local_files_only=True, **own)
    expected = call_of(pipeline, latent, size)

    timestep = float(pipeline.scheduler.timesteps[0])
    if backbone.pipeline_class is None:
        conditioning = backbone.condition([PROMPT])
    else:
        conditioning = Conditioning(backbone.encode_prompts(pipeline, [PROMPT]))
    if isinstance(backbone, TrimmedPromptBackbone):
        ((_, conditioning),) = backbone.trim(conditioning)
    found = dict(backbone.transformer_inputs(latent, timestep, conditioning))
    if name == "chroma1-hd":  # its pipeline pads; the mask says what is to be left out
        expected = without_padding(expected)
    if name == "ideogram-4":
        expected = without_left_padding(expected)
    if name == "omnigen":
        expected = without_negative_prompt(expected)
    if name == "glm-image":  # the call with a draft of the image; without, it is only left out
        assert found.pop("prior_token_drop").all()
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


def without_left_padding(call: Mapping[str, Any]) -> dict[str, Any]:
    """Cut off the padding in front of Ideogram's words, which is a segment of its own."""
    padding = int((call["segment_ids"][0] == -1).sum())
    return {
        argument: value[:, padding:] if isinstance(value, Tensor) and value.ndim > 1 else value
        for argument, value in call.items()
    }


def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OmniGen's pipeline prepare prompts, for which it uses nothing of torchvision."""
    from diffusers.pipelines.omnigen import pipeline_omnigen, processor_omnigen

    processor = processor_omnigen.OmniGenMultiModalProcessor
    monkeypatch.setattr(processor_omnigen, "transforms", MagicMock(), raising=False)
    monkeypatch.setattr(pipeline_omnigen, "OmniGenMultiModalProcessor", processor, raising=False)


def without_negative_prompt(call: Mapping[str, Any]) -> dict[str, Any]:
    """Take OmniGen's first row, without the padding to the negative prompt's length."""
    padding = int((call["position_ids"][0] == 0).sum()) - 1
    rows = {name: v[:1] if isinstance(v, Tensor) else v for name, v in call.items()}
    for argument in ("input_ids", "position_ids", "attention_mask"):
        rows[argument] = rows[argument][:, padding:]
    return {**rows, "attention_mask": rows["attention_mask"][..., padding:]}


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
