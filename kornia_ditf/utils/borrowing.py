"""Running modules that belong to the caller, and leaving them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn


@contextmanager
def borrowed(*models: nn.Module) -> Iterator[None]:
    """Run models in evaluation mode, and restore them as they were.

    Where gradients are off, weights want none meanwhile: for those that do, torch chooses
    convolutions that round otherwise. A forward that a hook ends skips what accelerate and
    diffusers do after a layer, so weights that they brought to the device for it are sent back.

    Example:
        >>> model = nn.Dropout().train()
        >>> with borrowed(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    modules = list(chain.from_iterable(model.modules() for model in models))
    training = [module for module in modules if module.training]
    wanting = [] if torch.is_grad_enabled() else list(_wanting_gradients(modules))
    moved = [(model, place) for model in models if (place := _place_to_return_to(model))]
    for module in training:
        module.training = False
    for module, name in wanting:
        module._parameters[name].requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for module, name in wanting:  # by name: what offloads a weight makes it anew
            module._parameters[name].requires_grad_()
        for module in modules:
            _offload_again(module)
        for model, place in moved:
            model.to(place)


def _wanting_gradients(modules: list[nn.Module]) -> Iterator[tuple[Any, str]]:
    for module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.requires_grad:
                yield module, name


def execution_device(model: nn.Module) -> torch.device | None:
    """Find where the hooks of accelerate or diffusers run a model; None where it has none."""
    for module in model.modules():
        for hook in (*_accelerate_hooks(module), *_diffusers_hooks(module)):
            place = getattr(hook, "execution_device", None)
            place = getattr(getattr(hook, "group", None), "onload_device", place)
            if place is not None:
                return torch.device(place)
    return None


def _place_to_return_to(model: nn.Module) -> torch.device | None:
    """Where the weights of a wholly offloaded model are, if its hooks move them as a whole."""
    from_hooks = any(type(hook).__name__ == "CpuOffload" for hook in _accelerate_hooks(model))
    parameter = next(model.parameters(), None)
    return parameter.device if from_hooks and parameter is not None else None


def _offload_again(module: nn.Module) -> None:
    for hook in _accelerate_hooks(module):
        own = chain(module._parameters.values(), module._buffers.values())
        if getattr(hook, "offload", False) and any(v is not None and not v.is_meta for v in own):
            hook.post_forward(module, None)
    for hook in _diffusers_hooks(module):
        if hasattr(hook, "group"):
            hook.post_forward(module, None)


def _accelerate_hooks(module: nn.Module) -> list[Any]:
    hook: Any = vars(module).get("_hf_hook")
    return list(getattr(hook, "hooks", [hook])) if hook is not None else []


def _diffusers_hooks(module: nn.Module) -> list[Any]:
    registry: Any = vars(module).get("_diffusers_hook")
    return list(registry.hooks.values()) if registry is not None else []
