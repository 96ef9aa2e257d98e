from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kornia_ditf.backbones.offloading import OffloadedBlocks
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.registry.lookup import create_ditf

OPTIONS: dict[str, Any] = {"block": 2, "long_side": 32, "massive_channels": ()}


def places(module: nn.Module) -> list[int]:
    return [each.data_ptr() for each in (*module.parameters(), *module.buffers())]


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("family", ["nano", "flux", "sd3.5-medium", "dit"])
def test_offloaded_blocks_give_the_same_features_and_go_home(
    family: str, quantize: str | None, tiny_checkpoint: Callable[[str], Path]
) -> None:
    folder = tiny_checkpoint(family)
    plain = create_ditf(folder, quantize=quantize, **OPTIONS)
    ditf = create_ditf(folder, quantize=quantize, offload="layers", **OPTIONS)
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    backbone: Any = ditf.backbone
    blocks = backbone.loaded_blocks()
    homes, seen = [places(block) for block in blocks], []
    for block in blocks:
        block.register_forward_pre_hook(lambda module, _: seen.append(places(module)))
    for described in (ditf(image), ditf(image)):
        assert torch.equal(described.data, plain(image).data)
        assert [places(block) for block in blocks] == homes
    assert len(seen) == 2 * 3 and len(blocks) == 3
    assert all(set(away).isdisjoint(home) for away, home in zip(seen, homes * 2, strict=True))
    assert ditf.place.type == "cpu"


def test_each_block_is_copied_once_a_forward_and_none_after_the_last_that_runs(
    tiny_checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ditf = create_ditf(tiny_checkpoint("nano"), offload="layers", **{**OPTIONS, "blocks": [1, 2]})
    copied: list[int] = []
    copy = OffloadedBlocks._copy

    def counted(self: OffloadedBlocks, number: int) -> None:
        if number not in self.copies:
            copied.append(number)
        copy(self, number)
        assert len(self.copies) <= 2

    monkeypatch.setattr(OffloadedBlocks, "_copy", counted)
    for _ in range(2):
        ditf(torch.rand(3, 32, 32))
    assert copied == [0, 1, 2] * 2


def test_streams_wait_for_each_other_before_memory_is_read_or_taken_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            log.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        log.append(f"{stream.name} copies")
        yield

    def take(home: torch.Tensor, **_: object) -> torch.Tensor:
        assert not log or not log[-1].endswith("copies")  # memory is the computation's
        return torch.zeros(home.shape)

    blocks = [nn.Linear(2, 2, bias=False) for _ in range(3)]
    offloaded = OffloadedBlocks(blocks, torch.device("cpu"))
    offloaded.stream = Stream("side")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream("main"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch, "empty_like", take)
    for number, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda *_, number=number: log.append(f"main runs {number}"))
    nn.Sequential(*blocks)(torch.ones(1, 2))
    copy = ["side waits for main", "side copies"]
    ready = "main waits for side"
    assert log == [
        *(*copy, ready, *copy, "main runs 0"),
        *(ready, *copy, "main runs 1"),
        *(ready, "main runs 2"),
    ]


def test_a_forward_that_fails_sends_the_weights_home() -> None:
    block = nn.Linear(2, 2)
    home = places(block)
    offloaded = OffloadedBlocks([block], torch.device("cpu"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        block(torch.ones(1, 3))
    assert places(block) == home and not offloaded.copies


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offload": "layer"}, "offload must be True, False or 'layers'"),
        ({"offload": 1}, "offload must be True, False or 'layers'"),
        ({"offload": "layers", "compile": True}, "compile=True cannot be combined with offload"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        create_ditf("nano", **options)


def test_weights_of_a_quantisation_library_are_refused() -> None:
    class Packed(nn.Parameter):
        pass

    layer = nn.Linear(2, 2)
    layer.weight = Packed(layer.weight.data)
    with pytest.raises(InvalidArgumentError, match="got a Packed; leave out quantization_config"):
        OffloadedBlocks([layer], torch.device("cpu"))
