"""Loading a DIFT descriptor up to its up block, from a model in the diffusers layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.diffusers_backbone import read_schedule
from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint, take_hub_options
from kornia_ditf.loading.memory import LoadedModel, LoadedPromptEncoder
from kornia_ditf.loading.prompts import CachedPromptEncoder
from kornia_ditf.loading.single_file import load_single_file
from kornia_ditf.loading.weight_file import WeightFile, as_file
from kornia_ditf.loading.weights import Layout, load_transformer, load_vae_encoder
from kornia_ditf.utils.checks import check_integer, read_placement
from kornia_ditf_sd.descriptor import DIFT, DIFTConfig

_LAYOUT = Layout(
    class_name="UNet2DConditionModel",
    block_lists=("up_blocks",),
    unused=("conv_norm_out", "conv_act", "conv_out"),
)
_NO_IMAGES = {"unet": None, "vae": None, "feature_extractor": None, "image_encoder": None}
_PIPELINES: Mapping[str, Mapping[str, Any]] = {
    "StableDiffusionPipeline": {
        **_NO_IMAGES,
        "safety_checker": None,
        "requires_safety_checker": False,
    },
    "StableDiffusionXLPipeline": {**_NO_IMAGES, "add_watermarker": False},
}


def load_dift(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    weights: str | Path | None = None,
    **options: Any,
) -> DIFT:
    """Load a DIFT descriptor: the UNet up to its up block, and the VAE's encoder.

    Text encoders are loaded while a prompt is embedded that was not embedded before.

    Args:
        source: a hub id or a local folder, in the diffusers layout, with safetensors.
        dtype: of the UNet; None is bfloat16 on an accelerator, float32 on a CPU. The VAE's encoder
            stays in float32: SDXL's overflows float16.
        device: where to compute.
        weights: a safetensors file with the UNet's weights in place of the source's, or such a file
            on the hub, as owner/name/file.
        options: `revision`, `token`, `cache_dir`, `local_files_only` and `variant` as for
            `kornia_ditf.loading.checkpoint.Checkpoint`; all others are fields of `DIFTConfig`.

    Raises:
        CheckpointError: a file or tensor is missing, damaged, or of another model.
        HubError: the hub does not give a file.
        InvalidArgumentError: an option is wrong, or the UNet has no such block.
    """
    place, dtype = read_placement(device, dtype)
    hub = take_hub_options(options)
    config = DIFTConfig(**options)  # before anything is read
    checkpoint = Checkpoint(source, **hub)
    pipeline = str(checkpoint.json("model_index.json").get("_class_name"))
    if pipeline not in _PIPELINES:
        raise CheckpointError(f"{source} holds a {pipeline}; known are {', '.join(_PIPELINES)}")
    file = None if weights is None else _open_weights(weights, hub)
    identity = checkpoint.identity if file is None else f"{file.identity} {checkpoint.identity}"
    descriptor = DIFT(
        _load_unet(checkpoint, config.up_ft_index, dtype, file),
        load_vae_encoder(checkpoint),
        prompt_encoder=CachedPromptEncoder(
            checkpoint,
            pipeline,
            _encode_prompt,
            dtype=dtype,
            device=place,
            modules=lambda *_: _PIPELINES[pipeline],
        ),
        schedule=read_schedule(checkpoint),
        config=config,
        identity=identity,
    )
    return descriptor.eval().requires_grad_(False).to(place)


def _load_unet(
    checkpoint: Checkpoint, up_ft_index: int, dtype: torch.dtype, file: WeightFile | None
) -> nn.Module:
    config = checkpoint.json("unet/config.json")
    blocks = config.get("up_block_types")
    if not isinstance(blocks, list):
        raise CheckpointError(f"{checkpoint.source}/unet/config.json names no up_block_types")
    check_integer("up_ft_index", up_ft_index, 0, len(blocks) - 1)
    if file is not None:
        return load_single_file(file, _LAYOUT, config, last_block=up_ft_index, dtype=dtype)
    return load_transformer(
        checkpoint,
        _LAYOUT,
        last_block=up_ft_index,
        dtype=dtype,
        subfolder="unet",
    )


def _open_weights(weights: str | Path, hub: Mapping[str, Any]) -> WeightFile:
    path = as_file(weights)
    if path is None:
        owner, _, name = str(weights).rpartition("/")
        options = {key: value for key, value in hub.items() if key not in ("revision", "variant")}
        path = Checkpoint(owner or str(weights), **options).file(name)
    return WeightFile(path)


def use_loaded(loaded: LoadedModel, **options: Any) -> DIFT:
    """Create a DIFT descriptor from a pipeline in memory, or from (unet, vae, scheduler).

    Args:
        loaded: its parts, which are used where and as they are.
        options: fields of `DIFTConfig`, and `prompt_encoder`, from prompts to a `Conditioning` or
            a pipeline that embeds them, in place of the pipeline's own.

    Raises:
        CheckpointError: there is no scheduler, or one of no such model.
        InvalidArgumentError: an option is wrong, there is no VAE or nothing to embed prompts with.
    """
    encoder = options.pop("prompt_encoder", loaded.pipeline)
    if hasattr(encoder, "encode_prompt"):
        encoder = LoadedPromptEncoder(encoder, _encode_prompt)
    config = DIFTConfig(**options)
    if loaded.vae is None or encoder is None:
        raise InvalidArgumentError(
            f"{loaded.source} needs a VAE and prompts: give the whole pipeline, or "
            "(unet, vae, scheduler) and prompt_encoder=..."
        )
    files: Any = loaded  # answers for its configurations as a Checkpoint does
    schedule = read_schedule(files)
    return DIFT(loaded.model, loaded.vae, prompt_encoder=encoder, schedule=schedule, config=config)


def _encode_prompt(pipeline: Any, prompt: str) -> dict[str, Tensor]:
    encoded = pipeline.encode_prompt(
        [prompt],
        device=pipeline._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    if len(encoded) == 2:
        return {"prompt_embeds": encoded[0]}
    return {"prompt_embeds": encoded[0], "pooled_prompt_embeds": encoded[2]}
