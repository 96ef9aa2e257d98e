"""Blocks whose weights stay in the CPU's memory and come to the device one after another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kornia_ditf.errors import InvalidArgumentError


class OffloadedBlocks:
    """Keep the weights of blocks on the CPU, and copy each block's to the device while it runs.

    The next block's weights are copied meanwhile, so the device holds those of two blocks. On a GPU
    they are copied from page-locked memory, in a stream of their own. A forward that a hook ends
    leaves no more than the next block's weights there. (diffusers' group offloading learns what
    comes next from whole forwards alone.)

    Args:
        blocks: in the order in which they run, on the CPU.
        device: where they run.

    Raises:
        InvalidArgumentError: a block holds weights of a quantisation library, which move otherwise.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self.device = device
        stream: Any = torch.cuda.Stream
        self.stream = stream(device) if device.type == "cuda" else None
        self.tensors = [[*block.parameters(), *block.buffers()] for block in blocks]
        for each in (tensor for tensors in self.tensors for tensor in tensors):
            if type(each) not in (nn.Parameter, Tensor):
                raise InvalidArgumentError(
                    f"offload='layers' moves plain weights, got a {type(each).__name__}; leave "
                    "out quantization_config, or use quantize='int8' instead"
                )
        self.homes = [
            [each.data.pin_memory() if self.stream else each.data for each in tensors]
            for tensors in self.tensors
        ]
        self.copies: dict[int, list[Tensor]] = {}
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(partial(self._enter, number))
            block.register_forward_hook(partial(self._leave, number), always_call=True)

    def _enter(self, number: int, *_: Any) -> None:
        self._copy(number)
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        _point(self.tensors[number], self.copies[number])
        if number + 1 < len(self.tensors):
            self._copy(number + 1)

    def _leave(self, number: int, *_: Any) -> None:
        _point(self.tensors[number], self.homes[number])
        self.copies.pop(number, None)

    def _copy(self, number: int) -> None:
        if number in self.copies:
            return
        # Memory of the stream that computes, in whose order it is freed and taken again. With
        # memory of the other stream, a host that runs ahead would take some for every block.
        here = [torch.empty_like(home, device=self.device) for home in self.homes[number]]
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            for copy, home in zip(here, self.homes[number], strict=True):
                copy.copy_(home, non_blocking=True)
        self.copies[number] = here


def _point(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.data = value
