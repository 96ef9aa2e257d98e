"""The arguments with which a pipeline calls its transformer, to compare ours with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.inputs import pack
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.backbones.video import as_clip
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.weights import without_deprecations, without_progress_bars
from kornia_ditf.types import Conditioning

PROMPT = "a cat, and a dog"


class Called(Exception):
    """The transformer was called: there the pipeline ends."""


# What a pipeline wants besides a prompt, a size and latents; by its class.
OPTIONS: dict[str, dict[str, Any]] = {
    "LTX2Pipeline": {"frame_rate": 24.0, "audio_guidance_scale": 1.0},
    "JoyImageEditPlusPipeline": {"guidance_scale": 1.0},
    "HunyuanVideoPipeline": {"guidance_scale": 6.0},
    "QwenImageLayeredPipeline": {"image": Image.new("RGBA", (96, 64)), "layers": 1},
    "QwenImagePipeline": {"true_cfg_scale": 1.0},
    "ZImagePipeline": {"guidance_scale": 0.0},
    "Flux2Pipeline": {"guidance_scale": 4.0},
    "LongCatImagePipeline": {"enable_prompt_rewrite": False},
    "FluxKontextPipeline": {"guidance_scale": 3.5, "max_area": 64 * 96},
    "HunyuanImagePipeline": {"distilled_guidance_scale": 3.25},
    "GlmImagePipeline": {"prior_token_ids": torch.zeros(1, 24, dtype=torch.long)},
    "Ideogram4Pipeline": {"max_sequence_length": 64, "guidance_schedule": None},
    "Krea2Pipeline": {"guidance_scale": 0.0},
}
BUILT = ("transformer", "vae", "guider", "requires_safety_checker", "feature_extractor")
# Those whose users hand over latents packed 2 x 2.
PACKED = (
    "BriaPipeline",
    "ChromaPipeline",
    "FluxKontextPipeline",
    "LongCatImagePipeline",
    "OvisImagePipeline",
    "QwenImagePipeline",
)

CLIPS = (
    "HunyuanVideo15Pipeline",
    "HunyuanVideoPipeline",
    "JoyImageEditPlusPipeline",
    "MochiPipeline",
    "MotifVideoPipeline",
    "SkyReelsV2Pipeline",
    "WanPipeline",
)


def packed(pipeline: Any, latent: Tensor) -> Tensor:
    """Shape a latent (1, C, h, w) as a pipeline wants it from its user."""
    name = type(pipeline).__name__
    if name in PACKED:
        return pipeline._pack_latents(latent, *latent.shape)
    if name in ("LTXPipeline", "LTX2Pipeline"):
        return pipeline._pack_latents(as_clip(latent))
    if name in CLIPS:
        return as_clip(latent)
    if name == "JoyImageEditPipeline":
        return latent[:, None, :, None]
    if name == "BriaFibo2Pipeline":
        return torch.nn.functional.pixel_shuffle(latent, 2)
    if name == "CogVideoXPipeline":
        clip = as_clip(latent)
        missing = -clip.shape[2] % (pipeline.transformer.config.patch_size_t or 1)
        return torch.cat([clip[:, :, :missing], clip], 2).transpose(1, 2)
    if name == "Kandinsky5T2IPipeline":
        return latent.permute(0, 2, 3, 1).unsqueeze(1)
    if name in ("Krea2Pipeline", "QwenImageLayeredPipeline", "NucleusMoEImagePipeline"):
        return pack(latent, 2)
    if name in ("BriaFiboPipeline", "Ideogram4Pipeline", "QwenImage21Pipeline"):
        return pack(latent, 1)
    return latent


def call_of(pipeline: Any, latent: Tensor, size: tuple[int, int], **more: Any) -> Mapping[str, Any]:
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
    options = {
        "guidance_scale": 1.0,
        "num_inference_steps": 4,
        "height": size[0],
        "width": size[1],
        "num_frames": 1,
        "use_resolution_binning": False,
    }
    taken: Mapping[str, Any] = inspect.signature(type(pipeline).__call__).parameters
    if isinstance(pipeline, diffusers.ModularPipeline):
        taken = dict.fromkeys(("num_inference_steps", "height", "width"))
    options = {name: value for name, value in options.items() if name in taken}
    with pytest.raises(Called):
        pipeline(
            prompt=PROMPT,
            latents=packed(pipeline, latent),
            **{**options, **OPTIONS.get(type(pipeline).__name__, {}), **more},
        )
    return seen


def calls_of(
    backbone: DiffusersBackbone, kind: str, folder: Path, latent: Tensor, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the arguments of the transformer, as the backbone and as the pipeline gives them."""
    size = [side * backbone.pixels_per_cell for side in latent.shape[-2:]]
    with without_progress_bars(), without_deprecations():
        modules = backbone.pipeline_modules(Checkpoint(folder), torch.float32)
        own = {part: module for part, module in modules.items() if part not in BUILT}
        if kind == "Flux3ModularPipeline":
            blocks = diffusers.Flux3AutoBlocks()
            blocks.sub_blocks.pop("prompt_upsampler")  # a language model that rewrites prompts
            pipeline: Any = blocks.init_pipeline(str(folder))
            pipeline.load_components(names=["transformer", "vae", "scheduler"])
            pipeline.update_components(**own)
        else:
            pipeline = getattr(diffusers, kind).from_pretrained(
                folder, local_files_only=True, **own
            )
    expected = dict(call_of(pipeline, latent, (size[0], size[1]), **options))
    if backbone.pipeline_class is None:
        conditioning = backbone.condition([PROMPT])
    else:
        conditioning = Conditioning(backbone.encode_prompt(pipeline, PROMPT))
    if isinstance(backbone, TrimmedPromptBackbone):
        ((_, conditioning),) = backbone.trim(conditioning)
    timestep = float(pipeline.scheduler.timesteps[0])
    if pipeline.scheduler.config.get("invert_sigmas"):  # it counts as its transformer does
        counted = timestep * 1000 / pipeline.scheduler.config.num_train_timesteps
        timestep = 1000 - counted
    return dict(backbone.transformer_inputs(latent, timestep, conditioning)), expected


def compare_calls(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare the arguments of the transformer with those of the pipeline."""
    without_sound = found.get("isolate_modalities", False)  # LTX-2's
    for argument, value in found.items():
        if not (without_sound and argument.startswith(("audio", "isolate"))):
            compare(argument, value, expected[argument])


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
