from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plugin_entries import Entry
from torch import Tensor

from kornia_ditf import create_descriptor
from kornia_ditf.errors import MissingExtraError, PluginError, PluginWarning
from kornia_ditf.registry.hookspecs import hookimpl
from kornia_ditf.registry.upsamplers import find_upsampler, list_upsamplers
from kornia_ditf.upsamplers import UpsamplerSpec
from kornia_ditf.upsamplers.filters import Upsampling


def nearest() -> Upsampling:
    def upsample(image: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(features, size)

    return upsample


def broken() -> Upsampling:
    raise RuntimeError("no weights")


NEAREST = UpsamplerSpec(name="nearest", load=nearest, source="a test")
BROKEN = UpsamplerSpec(name="broken", load=broken, source="a test")
LACKING = UpsamplerSpec(name="lacking", load=nearest, source="-", lacks=lambda: "pip install x")


def plugin(specs: list[Any]) -> ModuleType:
    module = ModuleType("plugin")

    @hookimpl
    def register_upsamplers() -> list[Any]:
        return specs

    module.register_upsamplers = register_upsamplers  # type: ignore[attr-defined]
    return module


def test_a_plugins_upsampler_is_listed_and_runs_in_a_descriptor(installed: list[Entry]) -> None:
    installed.append(Entry("ups", plugin([NEAREST, BROKEN, LACKING])))
    assert list_upsamplers()["nearest"] is NEAREST
    image = torch.rand(3, 32, 48)
    plain, fine = (
        create_descriptor("nano", long_side=48, upsample=name)(image).data
        for name in (None, "nearest(2)")
    )
    torch.testing.assert_close(fine[..., ::2, 1::2], plain)
    with pytest.raises(PluginError, match="cannot load the upsampler 'broken': no weights"):
        create_descriptor("nano", long_side=48, upsample="broken")(image)
    with pytest.raises(MissingExtraError, match="lacking cannot be used: pip install x"):
        find_upsampler("lacking(2)")


def test_a_plugins_wrong_upsamplers_are_left_out_alone(installed: list[Entry]) -> None:
    installed.append(Entry("ups", plugin([3, NEAREST])))
    with pytest.warns(PluginWarning, match="register_upsamplers returned a int"):
        assert "nearest" in list_upsamplers()


def test_built_in_upsamplers_ask_no_plugin(installed: list[Entry]) -> None:
    installed.append(Entry("broken", RuntimeError("must not be asked")))
    assert str(find_upsampler("joint_bilateral(4)")) == "joint_bilateral(4, 0.3)"
