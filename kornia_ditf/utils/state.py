"""State dicts without frozen parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


def leave_out_frozen(module: nn.Module) -> None:
    """Exclude wholly frozen children from a module's state_dict, and from loading one.

    Such a child comes from its own checkpoint. It is saved where the module's attribute
    `save_frozen` is true, and loaded where a state_dict holds it.

    Example:
        >>> module = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> _ = module["backbone"].requires_grad_(False)
        >>> leave_out_frozen(module)
        >>> list(module.state_dict())
        ['head.weight', 'head.bias']
    """
    module.register_state_dict_post_hook(_drop)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(_fill)  # type: ignore[no-untyped-call]


def _drop(module: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    for name, _child in _frozen_children(module):
        for key in [key for key in state if key.startswith(f"{prefix}{name}.")]:
            del state[key]


def _fill(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    # What is there already is loaded onto itself, so that strict loading misses nothing.
    for name, child in _frozen_children(module):
        if not any(key.startswith(f"{prefix}{name}.") for key in state):
            state.update(child.state_dict(prefix=f"{prefix}{name}."))


def _frozen_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if getattr(module, "save_frozen", False):
        return
    for name, child in module.named_children():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            yield name, child
