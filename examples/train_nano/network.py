"""The network: a small SanaTransformer2DModel on pixels, its descriptor, flow loss and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SanaTransformer2DModel
from torch import Tensor, nn

# diffusers' classes carry too few types for a checker to follow them.
Network = Any

CELL = 4
WIDTH = 160
HEADS = 5
BLOCKS = 8
BLOCK = 5
CAPTION_CHANNELS = 8


def build() -> Network:
    """Make the untrained network; its residual gates start at zero (adaLN-zero)."""
    network: Network = SanaTransformer2DModel(
        in_channels=3,
        out_channels=3,
        patch_size=CELL,
        num_layers=BLOCKS,
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        mlp_ratio=2.0,
        sample_size=32,
        interpolation_scale=None,  # no position code: place comes from the convolutions alone
        # There is no text: one null token of zeros goes through the narrowest cross-attention.
        caption_channels=CAPTION_CHANNELS,
        num_cross_attention_heads=1,
        cross_attention_head_dim=8,
        cross_attention_dim=WIDTH,
    )
    nn.init.zeros_(network.time_embed.linear.weight)
    nn.init.zeros_(network.time_embed.linear.bias)
    nn.init.zeros_(network.proj_out.weight)
    nn.init.zeros_(network.proj_out.bias)
    for block in network.transformer_blocks:
        with torch.no_grad():
            block.scale_shift_table[[2, 5]] = 0
        nn.init.zeros_(block.attn2.to_out[0].weight)
        nn.init.zeros_(block.attn2.to_out[0].bias)
    return network


def null_caption(batch: int, device: torch.device) -> Tensor:
    return torch.zeros(batch, 1, CAPTION_CHANNELS, device=device)


def noisy(image: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Mix along the rectified flow: level 0 is the image, 1 is noise; level has shape (B,)."""
    level = level[:, None, None, None]
    return level * noise + (1 - level) * image


def describe(network: Network, image: Tensor, level: Tensor, block: int) -> Tensor:
    """Return the input of a block after its own LayerNorm, scale and shift.

    Args:
        network: the transformer.
        image: noisy images, shape (B, 3, H, W).
        level: noise levels in [0, 1], shape (B,).
        block: index of the block whose input is described.

    Returns:
        shape (B, D, rows, columns).
    """
    batch, _, height, width = image.shape
    rows, columns = height // CELL, width // CELL
    x = network.patch_embed(image)
    modulation, _ = network.time_embed(1000 * level, batch_size=batch, hidden_dtype=x.dtype)
    caption = network.caption_projection(null_caption(batch, image.device))
    caption = network.caption_norm(caption.view(batch, -1, x.shape[-1]))
    for earlier in network.transformer_blocks[:block]:
        x = earlier(x, None, caption, None, modulation, rows, columns)
    here = network.transformer_blocks[block]
    table = here.scale_shift_table[None] + modulation.reshape(batch, 6, -1)
    shift, scale = table[:, :1], table[:, 1:2]
    descriptor = here.norm1(x) * (1 + scale) + shift
    tokens: Tensor = descriptor.transpose(1, 2).reshape(batch, -1, rows, columns)
    return tokens.float()


def flow_losses(network: Network, image: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity, noise - image, of each image, shape (B,)."""
    velocity = network(
        noisy(image, noise, level),
        encoder_hidden_states=null_caption(len(image), image.device),
        timestep=1000 * level,
        return_dict=False,
    )[0]
    error: Tensor = velocity.float() - (noise - image)
    return error.square().mean((1, 2, 3))


def read(folder: Path) -> Network:
    """Read the weights in single precision."""
    model: Any = SanaTransformer2DModel
    return model.from_pretrained(
        folder, subfolder="transformer", torch_dtype=torch.float32, local_files_only=True
    ).eval()


def write(network: Network, folder: Path) -> None:
    """Write the weights in half precision, in the diffusers layout."""
    half = build().half()
    half.load_state_dict({name: value.half() for name, value in network.state_dict().items()})
    half.save_pretrained(folder / "transformer", safe_serialization=True)
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "NanoPipeline",
        "transformer": ["diffusers", "SanaTransformer2DModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
