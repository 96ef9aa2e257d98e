"""The bytes that loading a backbone would download and hold, from its configuration alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kornia_ditf.errors import HubError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.single_file import plan_single_file
from kornia_ditf.loading.weight_file import WeightFile
from kornia_ditf.loading.weights import (
    Layout,
    build_empty,
    leave_out,
    leave_out_decoder,
    tensor_dtype,
)

_TEXT_ENCODER = re.compile(r"text_encoder\w*/model(?P<variant>\.\w+)?(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True, slots=True)
class LoadingPlan:
    """What loading a backbone up to a block costs, in bytes.

    Args:
        transformer_held: of the transformer in memory, up to the block.
        transformer_whole: of all of it.
        vae_held: of the VAE's encoder in memory.
        vae_whole: of all of it.
        download: per weight file that is needed and not here yet; None where the hub could not be
            asked, so that the files are not known.
        prompt_download: of the text encoders, fetched and held only while a new prompt is
            embedded; None where not known, 0 where the family has none.
        source: where these figures come from.
    """

    transformer_held: int
    transformer_whole: int
    vae_held: int
    vae_whole: int
    download: Mapping[str, int] | None
    prompt_download: int | None
    source: str

    @property
    def held(self) -> int:
        """Bytes in memory once the backbone is loaded."""
        return self.transformer_held + self.vae_held


def plan_loading(
    checkpoint: Checkpoint,
    layout: Layout,
    *,
    last_block: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    vae_class: str = "AutoencoderKL",
    file: tuple[WeightFile, dict[str, Any]] | None = None,
    folder: str = "transformer",
) -> LoadingPlan:
    """Work out what loading would download and hold; reads configurations, no weights.

    Args:
        checkpoint: where the files are.
        layout: where the transformer keeps its blocks.
        last_block: the last block to load; None is all.
        dtype: of the transformer in memory; the VAE's encoder is float32.
        architecture: configurations by part (`transformer`, `vae`), used where the checkpoint's
            own cannot be had.
        vae_class: the VAE's class in diffusers.
        file: a single file that holds the transformer, and the transformer's configuration; the
            checkpoint then holds the rest. Of GGUF the bytes in the file count.
        folder: the transformer's, of a checkpoint with several.

    Raises:
        CheckpointError: a local folder lacks a file or holds a damaged one.
        HubError: the hub does not give the configuration and `architecture` is not known.
        InvalidArgumentError: the block is out of range.
    """
    try:
        configs: Mapping[str, Mapping[str, Any]] = {
            part: checkpoint.json(f"{folder if part == 'transformer' else part}/config.json")
            for part in _parts(checkpoint)
        }
        source = f"the files of {checkpoint.source}"
    except HubError as error:
        if not architecture:
            raise
        configs = architecture
        source = f"the architecture alone; no file was looked at ({error})"
    needed: dict[str, set[str]] = {}
    if file is None:
        transformer = build_empty(
            dict(configs["transformer"]), layout.class_name, dtype, layout.model_class
        )
        whole = _bytes(transformer, dtype)
        leave_out(transformer, layout.block_lists, layout.unused, last_block)
        needed[folder] = set(transformer.state_dict())
        held = _bytes(transformer, dtype)
    else:
        source = f"{file[0].path} and {source}"
        held, whole = (_bytes_of_file(*file, layout, block, dtype) for block in (last_block, None))
    vae_held = vae_whole = 0
    if "vae" in configs:
        vae = build_empty(dict(configs["vae"]), vae_class, torch.float32)
        vae_whole = _bytes(vae, torch.float32)
        leave_out_decoder(vae)
        vae_held = _bytes(vae, torch.float32)
        needed["vae"] = set(vae.state_dict())
    return LoadingPlan(
        transformer_held=held,
        transformer_whole=whole,
        vae_held=vae_held,
        vae_whole=vae_whole,
        download=_downloads(checkpoint, needed),
        prompt_download=_prompt_download(checkpoint),
        source=source,
    )


def _parts(checkpoint: Checkpoint) -> list[str]:
    return ["transformer", *(["vae"] if checkpoint.has_part("vae") else [])]


def _bytes(model: nn.Module, dtype: torch.dtype) -> int:
    # Stored buffers count: the positions of SD3.5-medium are a fifth of what is held up to block 9.
    return sum(
        value.numel() * tensor_dtype(model, name, dtype).itemsize
        for name, value in model.state_dict().items()
    )


def _bytes_of_file(
    file: WeightFile,
    config: dict[str, Any],
    layout: Layout,
    last_block: int | None,
    dtype: torch.dtype,
) -> int:
    model, needed = plan_single_file(file, layout, config, last_block=last_block, dtype=dtype)
    if file.is_gguf:
        return sum(file.stored_bytes(name) for name in needed)
    return _bytes(model, dtype)


def _downloads(checkpoint: Checkpoint, needed: Mapping[str, set[str]]) -> dict[str, int] | None:
    files: set[str] = set()
    try:
        for part, names in needed.items():
            stored = checkpoint.weight_map(part)
            single = checkpoint.weight_file(part)
            files |= {single} if stored is None else {stored[name] for name in names & set(stored)}
        return {file: checkpoint.size(file) for file in sorted(files) if not checkpoint.has(file)}
    except HubError:
        return None


def _prompt_download(checkpoint: Checkpoint) -> int | None:
    try:
        found = [_TEXT_ENCODER.fullmatch(name) for name in checkpoint.files()]
    except HubError:
        return None
    stored = {match[0]: match["variant"] for match in found if match}
    wanted = f".{checkpoint.variant}"
    variant = wanted if wanted in stored.values() else None
    files = [name for name, own in stored.items() if own == variant]
    return sum(checkpoint.size(name) for name in files if not checkpoint.has(name))
