"""Running modules that belong to the caller, and leaving them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_ALIGNMENT = 64


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


def is_aligned(value: Tensor) -> bool:
    """Whether a tensor's memory starts where it does not change how products of it are rounded.

    Weights that are mapped from a file start anywhere in it, and the CPU's library for float32
    then adds up in another order than for the same weights elsewhere.
    """
    mapped = value.device.type == "cpu" and value.dtype == torch.float32
    return not mapped or value.data_ptr() % _ALIGNMENT == 0


def align(value: Tensor) -> Tensor:
    """Return a tensor, or its copy where its own memory is not aligned (see `is_aligned`)."""
    return value if is_aligned(value) else value.clone()


@contextmanager
def aligned(model: nn.Module) -> Iterator[None]:
    """Run each layer of a model with aligned copies of its weights, one layer's at a time.

    So a model in memory gives the numbers of the one that was loaded from its files. Where
    gradients are on, layers keep their own weights.
    """
    with ExitStack() as hooks:
        for module in () if torch.is_grad_enabled() else model.modules():
            own = {n: p for n, p in module._parameters.items() if p is not None}
            if not all(map(is_aligned, own.values())):
                hooks.callback(module.register_forward_pre_hook(_align).remove)
                restore = _Restore(own)
                hooks.callback(module.register_forward_hook(restore, always_call=True).remove)
        yield


def _align(module: nn.Module, _: Any) -> None:
    for name, value in module._parameters.items():
        if value is not None and not is_aligned(value):
            module._parameters[name] = nn.Parameter(value.detach().clone(), requires_grad=False)


class _Restore:
    """Gives a layer its own weights back after it ran."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self.parameters = parameters

    def __call__(self, module: nn.Module, *_: Any) -> None:
        module._parameters.update(self.parameters)


def set_execution_device(model: nn.Module, device: torch.device) -> None:
    """Remember where a model runs whose weights lie elsewhere; see `execution_device`."""
    model.__dict__["_execution_device"] = device


def execution_device(model: nn.Module) -> torch.device | None:
    """Find where a model runs whose weights are offloaded; None where they are not."""
    for module in model.modules():
        for hook in (*_accelerate_hooks(module), *_diffusers_hooks(module)):
            place = getattr(hook, "execution_device", None)
            place = getattr(getattr(hook, "group", None), "onload_device", place)
            if place is not None:
                return torch.device(place)
        if "_execution_device" in vars(module):
            return torch.device(vars(module)["_execution_device"])
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
