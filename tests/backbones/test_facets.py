from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.massive import channels_of_gates
from kornia_ditf.registry.lookup import create_ditf, find_backbone
from kornia_ditf.tap import Facet
from kornia_ditf.types import Conditioning

Checkpoints = Callable[[str], Path]

FAMILIES = {"dit": 0, "pixart-alpha": 0, "sd3": 0, "flux": 2, "nano": 0}
"""Families, and the block from which on their stream begins with text."""
LAYERS: dict[Facet, str] = {"query": "to_q", "key": "to_k", "value": "to_v"}


class Seen:
    """The first output of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        self.hook = layer.register_forward_hook(self.keep)
        self.output = torch.empty(0)

    def keep(self, _: nn.Module, __: Any, output: Tensor) -> None:
        if not self.output.numel():
            self.output = output


def load(folder: Path) -> DiffusersBackbone:
    backbone = find_backbone(folder).load(folder)
    assert isinstance(backbone, DiffusersBackbone)
    return backbone


def inputs(backbone: DiffusersBackbone) -> tuple[Tensor, int, Conditioning]:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, backbone.latent_channels, 8, 12, generator=generator)
    return latent, 200, backbone.condition([""]).expand(2)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_facets_are_diffusers_own_projections(family: str, tiny_checkpoint: Checkpoints) -> None:
    backbone = load(tiny_checkpoint(family))
    latent, timestep, conditioning = inputs(backbone)
    lists = [getattr(backbone.transformer, stream.blocks) for stream in backbone.streams]
    blocks: list[Any] = [block for blocks in lists for block in blocks]
    names = [
        stream.attention
        for stream in backbone.streams
        for _ in getattr(backbone.transformer, stream.blocks)
    ]
    for block in {0, min(3, len(blocks) - 1)}:
        attention = blocks[block].get_submodule(names[block])
        seen = {layer: Seen(getattr(attention, layer)) for layer in LAYERS.values()}
        # The whole forward, as diffusers runs it, up to its head, which is not loaded.
        device_dtype = next(backbone.transformer.parameters()).dtype
        told = conditioning.expand(len(latent)).to(latent.device, device_dtype)
        with suppress(TypeError, RuntimeError):
            backbone.transformer(**backbone.transformer_inputs(latent, timestep, told))
        for each in seen.values():
            each.hook.remove()
        for facet, layer in LAYERS.items():
            tap = backbone.taps(latent, timestep, conditioning, blocks=[block], facet=facet)[block]
            assert torch.equal(tap.x, seen[layer].output[:, -tap.x.shape[1] :])
            assert tap.shift is None and tap.scale is None
            assert backbone.facet_width(block, facet) == tap.x.shape[-1]
    assert not any(module._forward_hooks for module in backbone.transformer.modules())


def test_a_descriptor_of_keys_is_made_with_one_option() -> None:
    image = torch.rand(1, 3, 32, 48)
    ditf = create_ditf("nano", facet="key", long_side=None)
    assert (ditf.config.treatment, ditf.config.massive_channels) == ("raw", None)
    described = ditf(image)
    assert described.data.shape == (1, ditf.width, 8, 12)
    plain = create_ditf("nano", long_side=None)
    assert not torch.allclose(described.data, plain(image).data)
    assert ditf.identity != plain.identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"facet": "keys"}, "did you mean 'key'"),
        ({"facet": "key", "treatment": "adaln"}, "a block's key has no AdaLN"),
        ({"facet": "key", "massive_channels": "gates"}, "not of its key"),
    ],
)
def test_a_facet_that_cannot_be_had_says_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        create_ditf("nano", **options)


def gate_biases(backbone: Any) -> list[tuple[Tensor, list[int]]]:
    """Every tensor of a tiny model that adds to gates of its first two blocks, and where."""
    blocks = getattr(backbone.transformer, backbone.streams[0].blocks)[:2]
    if hasattr(blocks[0], "scale_shift_table"):
        return [(block.scale_shift_table.data, [2, 5]) for block in blocks]
    return [(block.norm1.linear.bias.data.view(-1, backbone.width), [2, 5]) for block in blocks]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_gates_find_every_planted_channel_without_an_image(
    family: str, tiny_checkpoint: Checkpoints
) -> None:
    backbone = load(tiny_checkpoint(family))
    _, timestep, conditioning = inputs(backbone)
    last = backbone.blocks - 1
    assert channels_of_gates(backbone.gates(timestep, conditioning.rows(0, 1), block=last)) == ()
    assert backbone.gates(timestep, conditioning.rows(0, 1), block=0).numel() == 0
    planted = set()
    for index, (gates, rows) in enumerate(gate_biases(backbone)):
        for row in rows:
            channel = 3 + 7 * index + row
            gates[row, channel] += 40.0 if index else -300.0
            planted.add(channel)
    found = backbone.gates(timestep, conditioning.rows(0, 1), block=last)
    assert channels_of_gates(found) == tuple(sorted(planted))
    # Only what lies before a block reaches its input.
    first = backbone.gates(timestep, conditioning.rows(0, 1), block=1)
    assert set(channels_of_gates(first)) == {3 + row for row in (2, 5)}


def test_channels_of_gates_are_known_to_a_descriptor_without_an_image() -> None:
    ditf = create_ditf("nano", massive_channels="gates", long_side=None)
    gates: Any = ditf.backbone.transformer.transformer_blocks[1].scale_shift_table
    with torch.no_grad():
        gates[2, 9] += 500.0
    ditf.backbone.identity = None
    assert ditf.massive_channels() == (9,)
    described = ditf(torch.rand(1, 3, 32, 32))
    assert described.discarded[0].channels == (9,)
    assert described.discarded[0].source == "residual gates"
