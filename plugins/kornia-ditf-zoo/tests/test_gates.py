"""Residual gates, against what they do to the stream of a tiny random model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kornia_ditf_zoo.catalogue import SPECS
from tiny_zoo import SAVERS
from torch import Tensor

from kornia_ditf.massive import channels_of_gates
from kornia_ditf.tap import BlockStream, count_blocks

SPEC = {spec.name: spec for spec in SPECS}
LOADED: dict[str, Any] = {name: SPEC[name].load for name in SAVERS}
NAMES = {
    load.__self__.transformer_class: name
    for name, load in LOADED.items()
    if any(getattr(stream.modulation, "gates", ()) != () for stream in load.__self__.streams)
}
"""One tiny model of every transformer that has gates."""


class Planted:
    """Adds much to one channel of rows of a block's modulation, another channel in each row."""

    def __init__(self, block: Any, modulation: Any, width: int) -> None:
        self.width, self.rows, self.count = width, [], 0
        if modulation.module is None:
            self.signature, self.argument = inspect.signature(block.forward), modulation.argument
            self.hook = block.register_forward_pre_hook(self.change_argument, with_kwargs=True)
        else:
            layer = block.get_submodule(modulation.module)
            self.hook = layer.register_forward_hook(lambda _, __, output: self.add(output))

    def change_argument(self, _: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        call = self.signature.bind(*args, **kwargs)
        value = call.arguments[self.argument]
        if isinstance(value, Tensor):
            changed: Any = self.add(value)
        else:  # ERNIE-Image hands the parts on, one by one
            changed = list(self.add(torch.stack(value, -2)).unbind(-2))
        call.arguments[self.argument] = changed
        return call.args, call.kwargs

    def add(self, value: Tensor) -> Tensor:
        alone = value.shape[-1] == self.width and value.ndim > 2
        rows = value.clone() if alone else value.reshape(*value.shape[:-1], -1, self.width).clone()
        self.count = rows.shape[-2]
        for row in self.rows:
            rows[..., row, 3 + row] += 300
        return rows.reshape(value.shape)


def reached(backbone: Any, told: Any, planted: Planted, block: int) -> set[int]:
    """Find the planted channels that stand out in the input of the next block."""
    generator = torch.Generator().manual_seed(0)
    side = 4 * backbone.patch_size
    latent = torch.randn(1, backbone.latent_channels, side, side, generator=generator)

    def stream(*rows: int) -> Tensor:
        planted.rows = list(rows)
        x: Tensor = backbone.tap(latent, 250, told, block=block).x
        return x

    clean = stream()
    changes = [(stream(row) - clean).abs().mean((0, 1)) for row in range(planted.count)]
    largest = [change.topk(2) for change in changes]
    return {
        3 + row
        for row, (values, channels) in enumerate(largest)
        if int(channels[0]) == 3 + row and values[0] > 2.5 * values[1]
    }


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # Kandinsky's own
@pytest.mark.filterwarnings("ignore:In CPU autocast")  # Mochi's
@pytest.mark.parametrize("name", NAMES.values())
@torch.no_grad()
def test_gates_point_at_the_planted_channels_that_reach_the_next_block(
    name: str, tiny_zoo: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kornia_ditf_zoo.hunyuanvideo._IMAGE_TOKENS", 3)  # of 729, for time
    backbone: Any = SPEC[name].load(tiny_zoo(name))
    told, first = backbone.condition([""]), 0
    streams: list[BlockStream] = backbone.streams
    for stream in streams:
        blocks = backbone.transformer.get_submodule(stream.blocks)
        if hasattr(stream.modulation, "gates") and first + 1 < backbone.blocks:
            planted = Planted(blocks[0], stream.modulation, backbone.width)
            found = reached(backbone, told, planted, first + 1)
            planted.rows = list(range(planted.count))
            gates = backbone.gates(250, told, block=first + 1)
            assert channels_of_gates(gates) == tuple(sorted(found))
            planted.hook.remove()
        first += count_blocks(backbone.transformer, [stream])


@torch.no_grad()
def test_cogvideox_has_gates_of_its_second_norm(tiny_zoo: Callable[[str], Path]) -> None:
    backbone: Any = SPEC["cogvideox1.5-5b"].load(tiny_zoo("cogvideox1.5-5b"))
    layer = backbone.transformer.transformer_blocks[0].norm2.linear
    image, text = (2, 7), (5, 9)
    for planted in (image, text):
        layer.bias.data.view(-1, backbone.width)[planted] += 300
    gates = backbone.gates(250, backbone.condition([""]), block=1)
    assert gates.shape == (2, backbone.width) and channels_of_gates(gates) == (7,)
