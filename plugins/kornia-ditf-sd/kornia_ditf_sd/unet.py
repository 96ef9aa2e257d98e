"""Capturing the output of one up block of a UNet, and loading no more than it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.errors import CaptureError, CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.single_file import load_single_file
from kornia_ditf.loading.weight_file import WeightFile
from kornia_ditf.loading.weights import Layout, load_transformer
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.utils.hooks import StopForward, run_with_hooks

_LAYOUT = Layout(
    class_name="UNet2DConditionModel",
    block_lists=("up_blocks",),
    unused=("conv_norm_out", "conv_act", "conv_out"),
)


def capture_up_block(unet: nn.Module, up_ft_index: int, inputs: Mapping[str, Any]) -> Tensor:
    """Run a UNet to the end of an up block and give what the block gives, its upsampler included.

    No later block runs, and the UNet's own forward does.

    Args:
        unet: a diffusers UNet2DConditionModel, whole or with its later up blocks left out.
        up_ft_index: which up block, counted from 0.
        inputs: arguments of the UNet's forward.

    Returns:
        shape (B, C, h, w), in the UNet's dtype.

    Raises:
        CaptureError: the forward never reached the block. No hook remains, whatever happens.
        InvalidArgumentError: the UNet has no such block.
    """
    blocks: Any = unet.up_blocks
    check_integer("up_ft_index", up_ft_index, 0, len(blocks) - 1)
    captured: list[Tensor] = []

    def stop(_: Any, output: Tensor) -> None:
        captured.append(output)
        raise StopForward

    if run_with_hooks(unet, inputs, after=[(blocks[up_ft_index], stop)]):
        return captured[0]
    raise CaptureError(f"the forward of {type(unet).__name__} never reached up block {up_ft_index}")


def load_unet(
    checkpoint: Checkpoint, up_ft_index: int, dtype: torch.dtype, file: WeightFile | None = None
) -> nn.Module:
    """Load a UNet up to an up block; later blocks are neither read nor held.

    Args:
        checkpoint: where the UNet's configuration and weights are.
        up_ft_index: the last up block.
        dtype: of the weights.
        file: holds the weights, in place of the checkpoint.

    Raises:
        CheckpointError: a file or tensor is missing, damaged, or of another model.
        HubError: the hub does not give a file.
        InvalidArgumentError: the UNet has no such block.
    """
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


def downsampling(unet: nn.Module) -> int:
    """Return by what a UNet divides the sides of a latent on its way down."""
    config: Any = unet.config
    return int(2 ** (len(config.down_block_types) - 1))
