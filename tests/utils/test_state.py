from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kornia_ditf.registry.lookup import create_ditf
from kornia_ditf.utils.state import leave_out_frozen


def two_parts() -> nn.ModuleDict:
    module = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    module["backbone"].requires_grad_(False)
    leave_out_frozen(module)
    return module


def test_what_was_trained_is_saved_and_loaded_without_what_was_not() -> None:
    module, other = nn.Sequential(two_parts()), nn.Sequential(two_parts())
    assert list(module.state_dict()) == ["0.head.weight", "0.head.bias"]
    kept = other[0]["backbone"].weight.clone()  # type: ignore[index]
    other.load_state_dict(module.state_dict())
    assert torch.equal(other[0]["head"].weight, module[0]["head"].weight)  # type: ignore[index]
    assert torch.equal(other[0]["backbone"].weight, kept)  # type: ignore[index]
    with pytest.raises(RuntimeError, match="Missing key.*head"):
        other.load_state_dict({})


def test_frozen_parts_are_saved_when_asked_for_and_loaded_when_there() -> None:
    module, other = two_parts(), two_parts()
    module.save_frozen = True  # type: ignore[assignment]
    state = module.state_dict()
    assert len(state) == 4
    other.load_state_dict(state)
    assert torch.equal(other["backbone"].weight, module["backbone"].weight)


def test_a_descriptors_state_is_without_its_backbone_in_a_copy_too() -> None:
    ditf = copy.deepcopy(create_ditf("nano", block=1))
    assert not ditf.state_dict()
    ditf.load_state_dict({})
    ditf.save_frozen = True
    assert ditf.state_dict().keys() == {f"backbone.{name}" for name in ditf.backbone.state_dict()}
