from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kornia_ditf.backbones.eight_bit import FORMATS, EightBitLinear
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.registry.lookup import create_ditf


@pytest.mark.parametrize(("kind", "share"), [("int8", 1 / 250), ("fp8", 1 / 15)])
def test_weights_are_restored_to_a_step_of_their_format(kind: str, share: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(40, 6, bias=False)
    layer.weight.data[2] = 0
    layer.weight.data[3] *= 1000
    stored = EightBitLinear(layer, FORMATS[kind])
    largest = layer.weight.abs().amax(1, keepdim=True)
    assert ((stored.weight - layer.weight).abs() <= share * largest).all()
    assert not stored.weight[2].any()
    x = torch.rand(2, 40)
    torch.testing.assert_close(stored(x), F.linear(x, stored.weight), rtol=0, atol=0)


@pytest.mark.parametrize("family", ["nano", "flux"])
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_backbone_in_8_bits_describes_nearly_as_before_in_less_memory(
    family: str, kind: str, tiny_checkpoint: Callable[[str], Path]
) -> None:
    options: dict[str, Any] = {"block": 2, "long_side": 64, "massive_channels": ()}
    plain = create_ditf(tiny_checkpoint(family), **options)
    small = create_ditf(tiny_checkpoint(family), quantize=kind, **options)
    image = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    cosine = F.cosine_similarity(plain(image).data, small(image).data, dim=1)
    assert cosine.mean() > 0.99
    held = [
        sum(value.nbytes for value in [*ditf.parameters(), *ditf.buffers()])
        for ditf in (plain, small)
    ]
    assert held[1] < held[0]
    assert any(isinstance(each, EightBitLinear) for each in small.modules())
    assert f"quantized={kind}" in small.backbone.settings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int4"}, "quantize must be one of int8, fp8, got 'int4'"),
        ({"quantize": "int8", "offload": True}, "offload=True or quantization_config"),
        ({"gradients": "no"}, "gradients must be True or False, got 'no'"),
        ({"device": "bogus"}, "device 'bogus' cannot be used: expected a name such as 'cpu'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        create_ditf("nano", **options)
