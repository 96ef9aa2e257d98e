"""Options of loaders: which there are, and what to say of one that there is not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields
from types import FunctionType, MethodType
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
    advice = _OTHER_NAMES.get(name) or did_you_mean(name, known)
    listed = f" (options: {', '.join(sorted(known))})" if known else ""
    return InvalidArgumentError(f"{owner} has no option {name!r}{advice}{listed}")


def known_options(load: Callable[..., Any]) -> Iterator[str]:
    """Go through the names of the options that a loader, and the class it belongs to, declare."""
    load = getattr(load, "func", load)  # of a partial
    owner = getattr(load, "__self__", load)
    classes = owner.__mro__ if isinstance(owner, type) else ()
    for function in (load, *(vars(each).get("__init__") for each in classes)):
        if isinstance(function, FunctionType | MethodType):
            for parameter in inspect.signature(function).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    yield parameter.name
    if classes and owner is not load:
        yield from HUB_OPTIONS


def passed_options(spec: Any) -> tuple[set[str], type] | None:
    """Return the names of the options that a spec's loader passes on, and their dataclass.

    None where its own signature says all.
    """
    if getattr(spec, "options", None) is None:
        return None
    load, config = spec.options()
    return {*known_options(load), *HUB_OPTIONS, *(each.name for each in fields(config))}, config


def check_options(owner: str, spec: Any, options: Mapping[str, Any]) -> None:
    """Check options as far as can be known without loading weights.

    Args:
        owner: what an error calls the descriptor.
        spec: of it. A loader that passes options on to what nobody knows is not checked.
        options: that it would be loaded with.

    Raises:
        InvalidArgumentError: there is no such option, or a value is out of range.
    """
    passed = passed_options(spec)
    if passed is not None:
        known, config = passed
        own = {each.name for each in fields(config)}
        for name in options:
            if name not in known:
                raise no_such_option(owner, name, known)
        config(**{name: value for name, value in options.items() if name in own})
        return
    load = getattr(spec.load, "func", spec.load)  # of a partial
    function = getattr(load, "__init__" if isinstance(load, type) else "__func__", load)
    if not isinstance(function, FunctionType):
        return
    known = _named(function)
    if spec.load is not load:
        known -= set(list(inspect.signature(load).parameters)[: len(spec.load.args)])
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values()):
        if function is not DiffusersBackbone.from_pretrained.__func__:  # type: ignore[attr-defined]
            return
        # It passes options on to the hub and to the constructors of the class.
        for each in getattr(load, "__self__", DiffusersBackbone).__mro__:
            known |= _named(vars(each).get("__init__")) | set(HUB_OPTIONS)
    for name in options:
        if name not in known:
            raise no_such_option(owner, name, known - {"self", "cls", "source"})


def _named(function: object) -> set[str]:
    if not isinstance(function, FunctionType):
        return set()
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
