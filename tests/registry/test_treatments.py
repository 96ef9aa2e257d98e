from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from plugin_entries import Entry

from kornia_ditf.config import DiTFConfig
from kornia_ditf.errors import InvalidArgumentError, PluginWarning
from kornia_ditf.registry.hookspecs import hookimpl
from kornia_ditf.registry.lookup import create_ditf
from kornia_ditf.registry.treatments import find_treatment, list_treatments
from kornia_ditf.treatments import TreatmentSpec
from kornia_ditf.types import Tap


def times(tap: Tap, factor: float = 2.0) -> Tap:
    return replace(tap, x=factor * tap.x)


TIMES = TreatmentSpec(name="times", apply=times, cost=1, source="a test")


def plugin(specs: list[object]) -> ModuleType:
    module = ModuleType("plugin")

    @hookimpl
    def register_treatments() -> list[object]:
        return specs

    module.register_treatments = register_treatments  # type: ignore[attr-defined]
    return module


def test_a_plugins_step_is_listed_and_runs_in_a_descriptor(
    installed: list[Entry],
) -> None:
    installed.append(Entry("steps", plugin([TIMES])))
    assert list_treatments()["times"] is TIMES
    assert find_treatment("adaln>times(3)") == "adaln > times(3)"
    image = torch.rand(1, 3, 32, 32)
    plain, tripled = (
        create_ditf("nano", long_side=32, treatment=line)(image).data
        for line in ("adaln", "adaln > times(3)")
    )
    torch.testing.assert_close(tripled, 3 * plain)
    with pytest.raises(InvalidArgumentError, match="did you mean 'times'"):
        create_ditf("nano", treatment="adaln > tims")


def test_a_plugins_wrong_steps_are_left_out_alone(
    installed: list[Entry],
) -> None:
    installed.append(Entry("steps", plugin([TIMES, replace(TIMES, name="adaln"), 3])))
    with pytest.warns(PluginWarning, match=r"'adaln' belongs to kornia_ditf.*returned a int"):
        assert "times" in list_treatments()


def test_built_in_treatments_ask_no_plugin(installed: list[Entry]) -> None:
    installed.append(Entry("broken", RuntimeError("must not be asked")))
    assert find_treatment("adaln+discard") == "adaln+discard"
    assert DiTFConfig(block=0, timestep=0, treatment="smooth(1)>adaln").treatment
