"""Cases from images to descriptors: whole models in their real shapes, and streams of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.bench.cases import Case, difference
from kornia_ditf.bench.timing import Work
from kornia_ditf.config import DiTFConfig
from kornia_ditf.descriptor import DiTF
from kornia_ditf.registry.lookup import create_descriptor, find_backbone
from kornia_ditf.tap import block_list
from kornia_ditf.types import Conditioning
from kornia_ditf.utils.isolation import building
from kornia_ditf.utils.measuring import count_flops

_TEXT = {"flux.1-dev": (512, 768), "sd3.5-medium": (333, 2048), "pixart-sigma-1024": (300, 0)}
"""Tokens of a prompt in each model, and the width of its pooled embedding."""

_TINY: Mapping[str, Any] = {
    "num_layers": 3,
    "num_single_layers": 2,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "caption_projection_dim": 128,
    "caption_channels": 32,
    "cross_attention_dim": 144,
    "pos_embed_max_size": 32,
    "dual_attention_layers": [0],
    "sample_size": 16,
}


def model_cases(device: torch.device, *, quick: bool = False) -> Iterator[Callable[[], Case]]:
    """Yield what makes each case; those of large models are for GPUs, or tiny."""
    for size, long_side, count in [((48, 64), 32, 4)] if quick else [((480, 640), 96, 32)]:
        yield partial(_stream, size, long_side, count, device)
    if not quick:
        yield partial(_stream, (3000, 4000), None, 8, device)
    if quick or device.type == "cuda":
        for name in _TEXT:
            yield partial(_forward, name, device, quick)


def _stream(size: tuple[int, int], long_side: int | None, count: int, device: torch.device) -> Case:
    import numpy as np
    from PIL import Image

    folder = Path(mkdtemp())
    generator = np.random.default_rng(0)
    paths = []
    for number in range(4):
        small = generator.integers(0, 256, (size[0] // 12, size[1] // 12, 3), np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(paths[-1])
    paths *= count // len(paths)
    options: dict[str, Any] = {} if long_side is None else {"long_side": long_side}
    descriptor = create_descriptor("nano", device=str(device), **options)

    def ours() -> Tensor:
        return [described.cpu().data for described in descriptor.describe_many(paths)][-1]

    def one_by_one() -> Tensor:
        return [descriptor(path).cpu().data for path in paths][-1]

    finalize(ours, rmtree, folder)

    name = f"{count} JPEG files of {size[1]} x {size[0]}, nano at {descriptor.long_side} pixels"
    contestants: dict[str, Work] = {"kornia_ditf": ours, "one at a time": one_by_one}
    return Case("Describing many images", name, contestants, difference, wall=True)


def random_backbone(name: str, device: torch.device, dtype: torch.dtype, *, tiny: bool) -> Any:
    """Create a backbone with random weights on a device, in its real shape or a tiny one.

    Returns:
        the backbone, whose prompts are all the same random embedding.
    """
    import diffusers

    spec = find_backbone(name)
    family: Any = getattr(spec.load, "__self__", None)
    assert spec.architecture is not None
    configs = {part: dict(config) for part, config in spec.architecture.items()}
    words, pooled = _TEXT[name]
    if tiny:
        words, pooled = 7, min(pooled, 16)
        transformer = configs["transformer"]
        transformer |= {key: value for key, value in _TINY.items() if key in transformer}
        if pooled:
            transformer["pooled_projection_dim"] = pooled
        configs["vae"]["block_out_channels"] = [32] * 4
    with building(dtype), torch.device(device):
        models = {
            part: getattr(diffusers, kind).from_config(configs[part])
            for part, kind in (("transformer", family.transformer_class), ("vae", family.vae_class))
        }
    width = next(
        configs["transformer"][key]
        for key in ("joint_attention_dim", "caption_channels")
        if key in configs["transformer"]
    )
    tensors = {"prompt_embeds": torch.randn(1, words, width)}
    if pooled:
        tensors["pooled_prompt_embeds"] = torch.randn(1, pooled)
    else:
        tensors["prompt_attention_mask"] = torch.ones(1, words)
    backbone = family(
        models["transformer"],
        models["vae"].float(),
        prompt_encoder=lambda prompts: Conditioning(tensors).expand(len(prompts)),
    )
    return backbone.eval().requires_grad_(False)


def _forward(name: str, device: torch.device, quick: bool) -> Case:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    backbone = random_backbone(name, device, dtype, tiny=quick)
    spec = find_backbone(name)
    side = 64 if quick else spec.long_side
    block = min(spec.block, backbone.blocks - 2)
    config = DiTFConfig(block=block, timestep=spec.timestep, long_side=side, treatment="raw")
    ditf = DiTF(backbone, config)
    image = torch.rand(1, 3, side, side).to(device)
    noise = ditf.noise(image)[:, 0]
    lists = [(stream, block_list(backbone.transformer, stream)) for stream in backbone.streams]
    owners = [(stream, each) for stream, blocks in lists for each in blocks]
    norm = owners[block][1].get_submodule(owners[block][0].norm)

    def ours() -> Tensor:
        return ditf(image).tokens

    @torch.no_grad()
    def whole() -> Tensor:
        """Run the whole model and keep what enters the block, as published scripts do."""
        seen: list[Tensor] = []
        hook = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        latent = backbone.encode(image)
        noisy = backbone.schedule.mix(latent, noise, config.timestep).to(device, dtype)
        conditioning = backbone.condition([""]).to(device, dtype)
        backbone.transformer(**backbone.transformer_inputs(noisy, config.timestep, conditioning))
        hook.remove()
        return seen[0].float()

    tokens, flops = count_flops(ours)
    square = 8192 if device.type == "cuda" else 64
    factor = torch.rand(square, square).to(device, dtype)
    product, times = torch.empty_like(factor), max(1, round(flops / (2 * square**3)))

    def products() -> None:
        for _ in range(times):
            torch.mm(factor, factor, out=product)

    def compare(mine: Tensor, other: Tensor) -> str:
        cosine = F.cosine_similarity(mine, other[:, -mine.shape[1] :], dim=-1).min()
        return f"least cosine {cosine:.6f}"

    contestants: dict[str, Work] = {
        "kornia_ditf": ours,
        "a full forward": whole,
        "torch.mm alone": products,
    }
    size = f"{name} up to block {block} of {backbone.blocks}, {side} x {side}"
    return Case(
        "From an image to a block",
        f"{size}, {tokens.shape[1]} tokens, {str(dtype).removeprefix('torch.')}",
        contestants,
        compare,
        flops=flops,
        reference="torch.mm alone",
    )
