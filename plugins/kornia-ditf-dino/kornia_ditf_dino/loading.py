"""Loading a DINO up to a layer, from a hub id or a folder in the layout of transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint, take_hub_options
from kornia_ditf.loading.quantisation import check_plain
from kornia_ditf.loading.weights import without_progress_bars, without_remarks
from kornia_ditf.utils.checks import read_placement
from kornia_ditf.utils.isolation import building
from kornia_ditf_dino.descriptor import DINO, DINOConfig

_CLASSES = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
}
# What the configuration says of a backbone's stages, which a shorter model has not.
_STAGES = ("out_features", "out_indices", "stage_names")


def load_dino(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> DINO:
    """Load a DINO descriptor; layers after the asked one are neither built nor held.

    Args:
        source: a hub id or a local folder, in the layout of transformers, with safetensors.
        dtype: None is bfloat16 on an accelerator, float32 on a CPU.
        device: where to compute.
        options: `revision`, `token`, `cache_dir`, `local_files_only` and `variant` as for
            `kornia_ditf.loading.checkpoint.Checkpoint`; all others are fields of `DINOConfig`.
            Without a mean and a standard deviation of the colours the model's
            preprocessor_config.json says them, or else they are ImageNet's.

    Raises:
        CheckpointError: a file or tensor is missing, damaged, or of another model.
        HubError: the hub does not give a file.
        InvalidArgumentError: an option is wrong, or the model has no such layer.
    """
    place, dtype = read_placement(device, dtype)
    hub = take_hub_options(options)
    asked = DINOConfig(**options)  # before anything is read
    checkpoint = Checkpoint(source, **hub)
    values = checkpoint.json("config.json")
    depth = values.get("num_hidden_layers")
    if values.get("model_type") not in _CLASSES or not isinstance(depth, int) or depth < 1:
        raise CheckpointError(
            f"{source}/config.json is of a {values.get('model_type')!r} model with {depth!r} "
            f"layers; known are {', '.join(_CLASSES)}"
        )
    check_plain(checkpoint, "")
    # Before the later layers go: the last of those that remain is not the model's last.
    config = replace(asked.settle(depth), **_colours(checkpoint, options))
    kept = {**values, "num_hidden_layers": int(config.layer or 0) + 1}
    model = _load_model(checkpoint, kept, dtype)
    descriptor = DINO(model.to(place), config, identity=checkpoint.identity)
    return descriptor.eval().requires_grad_(False)


def _colours(checkpoint: Checkpoint, options: dict[str, Any]) -> dict[str, Any]:
    name = "preprocessor_config.json"
    stored = checkpoint.json(name) if checkpoint.exists(name) else {}
    return {
        field: stored[f"image_{field}"]
        for field in ("mean", "std")
        if f"image_{field}" in stored and field not in options
    }


def _load_model(checkpoint: Checkpoint, values: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    import transformers

    kind = values["model_type"]
    classes: Any = transformers
    model_class = getattr(classes, _CLASSES[kind])
    options: dict[str, Any] = {"add_pooling_layer": False} if kind == "vit" else {}
    try:
        config = model_class.config_class.from_dict(
            {name: value for name, value in values.items() if name not in _STAGES}
        )
        # The weights of later layers are left unused, which is what was asked for.
        with building(dtype), without_progress_bars(), without_remarks():
            model, found = model_class.from_pretrained(
                **checkpoint.pretrained_options(),
                config=config,
                dtype=dtype,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # of transformers and the quantisation libraries
        raise CheckpointError(f"cannot load {checkpoint.source}: {error}") from error
    if found["missing_keys"]:
        first = min(found["missing_keys"])
        raise CheckpointError(
            f"{checkpoint.source} has no tensor {first!r}: it is incomplete, or its configuration "
            "is of another model"
        )
    loaded: nn.Module = model
    return loaded
