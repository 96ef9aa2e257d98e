"""The bytes that loading a backbone would download and hold, from its configuration alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from kornia_ditf.errors import HubError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.single_file import holds_vae, plan_single_file
from kornia_ditf.loading.weight_file import WeightFile
from kornia_ditf.loading.weights import (
    Layout,
    build_empty,
    leave_out,
    leave_out_decoder,
    tensor_dtype,
)

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_TEXT_TOKENS = 512
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
        by_option: of everything in memory on the device with an option of `create_descriptor`, by
            the option as it is typed.
        vae_channels: of the VAE's encoder at the image's own size; 0 without a VAE.
    """

    transformer_held: int
    transformer_whole: int
    vae_held: int
    vae_whole: int
    download: Mapping[str, int] | None
    prompt_download: int | None
    source: str
    by_option: Mapping[str, int] = field(default_factory=dict)
    vae_channels: int = 0

    @property
    def held(self) -> int:
        """Bytes in memory once the backbone is loaded."""
        return self.transformer_held + self.vae_held

    def working(self, tokens: int, pixels: int, width: int, dtype: torch.dtype) -> int:
        """Estimate the bytes of activations while one noisy image is described.

        The rule bounds what the real architectures of FLUX.1-dev, SD3.5-medium and PixArt-Sigma
        allocate at 512 and 1024 pixels, within 2 x; attention is taken to be computed in pieces.

        Args:
            tokens: of the image.
            pixels: of the image, fitted.
            width: channels of the transformer.
            dtype: of the transformer.
        """
        transformer = 18 * (tokens + _TEXT_TOKENS) * width * dtype.itemsize
        return max(transformer, 5 * self.vae_channels * pixels * torch.float32.itemsize)


def plan_loading(
    checkpoint: Checkpoint,
    layout: Layout,
    *,
    last_block: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    vae_class: str = "AutoencoderKL",
    file: tuple[WeightFile, Mapping[str, Any]] | None = None,
    folder: str = "transformer",
) -> LoadingPlan:
    """Estimate what loading would download and hold, from configurations without weights.

    `architecture` are configurations by part (`transformer`, `vae`), used where the checkpoint's
    own cannot be had. `file` is a single file that holds the transformer, and the transformer's
    configuration; the checkpoint then holds the rest, and of GGUF the bytes in the file count. The
    VAE's encoder is in float32.

    Raises:
        CheckpointError: a local folder lacks a file or holds a damaged one.
        HubError: the hub does not give the configuration and `architecture` is not known.
        InvalidArgumentError: the block is out of range.
    """
    try:
        configs: Mapping[str, Mapping[str, Any]] = {
            "transformer": checkpoint.json(f"{folder}/config.json")
        }
        if checkpoint.has_part("vae"):
            configs = {**configs, "vae": checkpoint.json("vae/config.json")}
        source = f"the files of {checkpoint.source}"
    except HubError as error:
        if not architecture:
            raise
        configs = architecture
        source = f"the architecture alone; no file was looked at ({error})"
    needed: dict[str, set[str]] = {}
    by_option: dict[str, int] = {}
    if file is None:
        own = configs["transformer"]
        transformer = build_empty(own, layout.class_name, dtype, layout.model_class)
        whole = _bytes(transformer, dtype)
        leave_out(transformer, layout.block_lists, layout.unused, last_block)
        needed[folder] = set(transformer.state_dict())
        held = _bytes(transformer, dtype)
        by_option = _by_option(transformer, layout.block_lists, dtype)
        stored = _quantised_bytes(checkpoint, own)
        if stored is not None:
            held, whole, by_option = held * stored // whole, stored, {}
            needed["transformer"] = set(checkpoint.weight_map("transformer") or ())
            source += (
                ", stored quantised: all of it is loaded, then what follows the block released"
            )
    else:
        source = f"{file[0].path} and {source}"
        held, whole = (_bytes_of_file(*file, layout, block, dtype) for block in (last_block, None))
    vae_held = vae_whole = channels = 0
    if "vae" in configs:
        vae = build_empty(configs["vae"], vae_class, torch.float32)
        vae_whole = _bytes(vae, torch.float32)
        leave_out_decoder(vae)
        vae_held = _bytes(vae, torch.float32)
        if file is None or not holds_vae(file[0]):
            needed["vae"] = set(vae.state_dict())
        channels = next((m.out_channels for m in vae.modules() if isinstance(m, _CONVOLUTIONS)), 0)
    return LoadingPlan(
        transformer_held=held,
        transformer_whole=whole,
        vae_held=vae_held,
        vae_whole=vae_whole,
        download=_downloads(checkpoint, needed),
        prompt_download=_prompt_download(checkpoint),
        source=source,
        by_option={option: held + vae_held for option, held in by_option.items()},
        vae_channels=channels,
    )


def _bytes(model: nn.Module, dtype: torch.dtype) -> int:
    return sum(_sizes(model, dtype).values())


def _sizes(model: nn.Module, dtype: torch.dtype) -> dict[str, int]:
    # Stored buffers count: the positions of SD3.5-medium are a fifth of what is held up to block 9.
    return {
        name: value.numel() * tensor_dtype(model, name, dtype).itemsize
        for name, value in model.state_dict().items()
    }


def _by_option(model: nn.Module, block_lists: Sequence[str], dtype: torch.dtype) -> dict[str, int]:
    """Count a transformer's bytes on the device with each option, by the option as it is typed."""
    sizes = _sizes(model, dtype)
    block = re.compile(rf"({'|'.join(map(re.escape, block_lists))})\.\d+\.")
    blocks: dict[str, int] = defaultdict(int)  # by prefix, in the order in which they run
    modules: dict[str, int] = defaultdict(int)
    for name, size in sizes.items():
        modules[name.rpartition(".")[0]] += size
        if (found := block.match(name)) is not None:
            blocks[found[0]] += size
    eight: dict[str, int] = defaultdict(int)  # what the linear layers of each block save
    four = 0
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            elements, size = module.weight.numel(), sizes[f"{name}.weight"]
            four += size - elements // 2 - elements // 16  # and float32 for each 64 weights
            if (found := block.match(name)) is not None:
                eight[found[0]] += size - elements - 4 * module.out_features
    whole = sum(sizes.values())
    rest = whole - sum(blocks.values())
    small = {block: size - eight[block] for block, size in blocks.items()}
    options = {
        f'dtype="{name}"': _bytes(model, getattr(torch, name)) for name in ("float32", "bfloat16")
    }
    options |= {f'quantize="{kind}"': whole - sum(eight.values()) for kind in ("int8", "fp8")}
    if find_spec("bitsandbytes") is not None:
        options["quantization_config=BitsAndBytesConfig(load_in_4bit=True)"] = whole - four
    options['offload="layers"'] = rest + _largest_two(blocks)
    options['quantize="int8", offload="layers"'] = rest + _largest_two(small)
    options["offload=True"] = max(modules.values())
    return options


def _largest_two(blocks: Mapping[str, int]) -> int:
    sizes = [0, *blocks.values()]
    return max((a + b for a, b in pairwise(sizes)), default=0)


def _bytes_of_file(
    file: WeightFile,
    config: Mapping[str, Any],
    layout: Layout,
    last_block: int | None,
    dtype: torch.dtype,
) -> int:
    model, needed = plan_single_file(file, layout, config, last_block=last_block, dtype=dtype)
    if file.is_gguf:
        return sum(file.stored_bytes(name) for name in needed)
    return _bytes(model, dtype)


def _quantised_bytes(checkpoint: Checkpoint, config: Mapping[str, Any]) -> int | None:
    """Count the bytes of a transformer that is stored quantised; None where it is not."""
    if config.get("quantization_config") is None:
        return None
    try:
        return sum(checkpoint.size(file) for file in checkpoint.weight_files("transformer"))
    except HubError:
        return None


def _downloads(checkpoint: Checkpoint, needed: Mapping[str, set[str]]) -> dict[str, int] | None:
    files: set[str] = set()
    try:
        for part, names in needed.items():
            stored = checkpoint.weight_map(part)
            if stored is None:
                files |= checkpoint.weight_files(part)
            else:
                files |= {stored[name] for name in names & stored.keys()}
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
