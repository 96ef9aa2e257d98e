from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError, MassiveChannelsWarning
from kornia_ditf.fusion import FusedDescriptor
from kornia_ditf.registry.lookup import create_ditf


class Reads(TorchDispatchMode):
    """Counts the operations by which a host reads what a device has computed."""

    names = ("_local_scalar_dense", "nonzero", "isin", "masked_select", "unique", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if any(name.startswith(read) for read in self.names):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["nano", "flux", "sd3", "dit", "pixart-alpha"])
def test_describing_reads_nothing_back_after_the_first_image(
    family: str, tiny_checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kornia_ditf.utils.values.is_host", lambda device: False)
    ditf = create_ditf(tiny_checkpoint(family), block=2, long_side=64)
    image = torch.rand(1, 3, 64, 48)
    expected = ditf(image).data
    lists: list[Tensor] = []
    with Reads() as reads, monkeypatch.context() as patch:
        patch.setattr(Tensor, "tolist", lambda tensor: lists.append(tensor))
        described = ditf(image)
    assert not reads.found and not lists
    assert len(described.checks) == 3
    described.check()
    assert torch.equal(described.data, expected) and not described.checks
    assert len(described.discarded) == 1


@pytest.mark.parametrize("family", ["nano", "flux", "sd3", "dit", "pixart-alpha"])
@pytest.mark.parametrize(
    "options",
    [
        {"ensemble": 3, "rows_per_forward": 4},
        {"facet": "key"},
        {"blocks": (1, 2), "timesteps": (260, 500), "massive_channels": (3,)},
        {"treatment": "adaln+discard > debias(0.99)", "massive_channels": (3,)},
        {"treatment": "smooth(0.5) > adaln > whiten"},
    ],
    ids=str,
)
def test_a_device_whose_values_cannot_be_read_describes_batches(
    family: str, options: dict[str, Any], tiny_checkpoint: Callable[[str], Path]
) -> None:
    """Nothing can be copied from the device `meta`: every read raises NotImplementedError."""
    given = {"block": 2, "timestep": 260, "ensemble": 2, "long_side": 64, **options}
    for several, one in (("blocks", "block"), ("timesteps", "timestep")):
        if several in given:
            del given[one]
    ditf = create_ditf(tiny_checkpoint(family), **given)
    image = torch.rand(1, 3, 64, 48)
    ditf(image)
    images = [ditf.prepare(image), ditf.prepare(1 - image)]
    for described in ditf.to("meta").describe_prepared(images, [None, None]):
        assert described.data.is_meta and described.checks


def test_what_was_not_read_is_raised_with_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kornia_ditf.utils.values.is_host", lambda device: False)
    ditf = create_ditf("nano", long_side=32, block=1)
    ditf = DiTF(ditf.backbone, replace(ditf.config, massive_channels=()))
    wrong = ditf(torch.full((2, 3, 32, 32), 2.0))
    for use in (wrong.check, lambda: wrong[1].tokens, lambda: wrong.at(torch.zeros(1, 1, 2))):
        with pytest.raises(InvalidArgumentError, match="got values from 2 to 2"):
            use()
    fused = FusedDescriptor([ditf, ditf])(torch.full((1, 3, 32, 32), float("nan")))
    with pytest.raises(InvalidArgumentError, match="must be finite"):
        fused.check()


def test_channels_found_on_a_device_are_read_and_doubted_when_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kornia_ditf.utils.values.is_host", lambda device: False)
    plain = create_ditf("nano", long_side=64)
    ditf = DiTF(plain.backbone, replace(plain.config, massive_channels=None))
    marked = torch.zeros(1, 160, dtype=torch.bool)
    marked[:, :7] = True
    monkeypatch.setattr("kornia_ditf.massive._mark", lambda size, *_: (None, None, marked[0]))
    described = ditf(torch.rand(1, 3, 64, 64))
    with pytest.warns(MassiveChannelsWarning, match="7 of 160 channels are massive"):
        described.check()
    assert described.discarded[0].channels == tuple(range(7))
    assert described.discarded[0].source == "this image"
