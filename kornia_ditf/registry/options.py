"""Options of loaders: which there are, and what to say of one that there is not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.checkpoint import HUB_OPTIONS
from kornia_ditf.utils.checks import did_you_mean

# What other libraries call it.
_OTHER_NAMES = {
    "torch_dtype": "; it is called dtype here: dtype='bfloat16'",
    "device_map": "; name one device: device='cuda', with offload=True where memory is short",
    "load_in_8bit": "; give quantization_config=..., one of diffusers' configurations",
    "load_in_4bit": "; give quantization_config=..., one of diffusers' configurations",
    "use_auth_token": "; it is called token here",
    "subfolder": "; name the folder that holds model_index.json",
    "resolution": "; it is called long_side here, in pixels",
}


def no_such_option(owner: str, name: str, known: Collection[str]) -> InvalidArgumentError:
    """Return the error for an option that a loader does not have, with the likely one."""
    own = sorted(set(known) - {"source"})  # which has a place of its own
    advice = _OTHER_NAMES.get(name) or did_you_mean(name, own)
    listed = f" (options: {', '.join(own)})" if own else ""
    return InvalidArgumentError(f"{owner} has no option {name!r}{advice}{listed}")


def known_options(load: Callable[..., Any]) -> set[str]:
    """Return the names of the options that a loader, and the class it belongs to, declare."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = {each.name for each in _parameters(load) if each.kind in named}
    owner = getattr(getattr(load, "func", load), "__self__", None)  # func of a partial
    if isinstance(owner, type):
        constructors = [vars(each).get("__init__") for each in owner.__mro__]
        every = [each for function in constructors for each in _parameters(function)]
        known |= {each.name for each in every if each.kind is each.KEYWORD_ONLY}
        known |= set(HUB_OPTIONS)
    return known


def options_of(spec: Any) -> set[str]:
    """Return the names of the options that a spec's loader declares or passes on."""
    known = known_options(spec.load)
    if getattr(spec, "options", None) is not None:
        load, config = spec.options()
        known |= {*known_options(load), *HUB_OPTIONS, *(each.name for each in fields(config))}
    return known


def check_options(owner: str, spec: Any, options: Mapping[str, Any]) -> None:
    """Check options as far as can be known without loading weights.

    Args:
        owner: what an error calls the descriptor.
        spec: of it. A loader that passes options on to what nobody knows is not checked.
        options: that it would be loaded with.

    Raises:
        InvalidArgumentError: there is no such option, or a value is out of range.
    """
    passed = getattr(spec, "options", None)
    known = options_of(spec)
    for name in options:
        if name not in known and (passed is not None or not _takes_others(spec.load)):
            raise no_such_option(owner, name, known)
    if passed is not None:
        config = passed()[1]
        own = {each.name for each in fields(config)}
        config(**{name: value for name, value in options.items() if name in own})


def _takes_others(load: Callable[..., Any]) -> bool:
    parameters = _parameters(load)
    function = getattr(getattr(load, "func", load), "__func__", load)
    if function is DiffusersBackbone.from_pretrained.__func__:  # type: ignore[attr-defined]
        return False  # it passes them on to the hub and to the constructors of the class
    return not parameters or any(each.kind is each.VAR_KEYWORD for each in parameters)


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # it is no function, or one that is written in C
        return []
