"""Add `ditf` to the features of matching pipelines.

Their configurations take the options of `create_descriptor`, `backbone` (the descriptor's name),
`detector` and `max_keypoints`; None takes the preset's value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any

from kornia_ditf.errors import InvalidArgumentError, MissingExtraError
from kornia_ditf.registry.lookup import DEFAULT_BACKBONE
from kornia_ditf.utils.checks import no_such

if TYPE_CHECKING:
    from kornia_ditf.adapters.kornia import DiTFFeature

NAME = "ditf"
"""Name of the feature in every host."""

DEFAULTS: dict[str, Any] = {
    "backbone": DEFAULT_BACKBONE,
    "detector": None,
    "max_keypoints": None,
    "block": None,
    "timestep": None,
    "treatment": None,
    "ensemble": None,
    "dtype": None,
    "device": None,
}
"""Default configuration that hosts list; other options are passed on as well."""


def use_in(host: str) -> None:
    """Add `ditf` to a pipeline's features in the running process.

    Args:
        host: `hloc`, `imcui.hloc` (the copy inside image-matching-webui), `gluefactory`, `vismatch`
            or `deep_image_matching`. docs/hosts.md shows the configuration of each.

    Raises:
        InvalidArgumentError: no such host.
        MissingExtraError: the host is not installed.

    Example:
        >>> use_in("hlok")
        Traceback (most recent call last):
        kornia_ditf.errors.InvalidArgumentError: no host is named 'hlok'; did you mean 'hloc'?
        (known: deep_image_matching, gluefactory, hloc, imcui.hloc, vismatch)
    """
    known = host.replace("-", "_").replace("glue_factory", "gluefactory")
    if known not in _HOSTS:
        raise InvalidArgumentError(no_such("host", host, sorted(_HOSTS)))
    module, install = _HOSTS[known]
    try:
        import_module(known)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{known}.".startswith(f"{error.name}."):
            raise
        raise MissingExtraError(f"{known} is not installed: {install}") from error
    import_module(f"kornia_ditf.adapters.{module}").switch_on(known)


_HOSTS: dict[str, tuple[str, str]] = {
    "hloc": ("hloc", "install it from its repository, cvg/Hierarchical-Localization"),
    "imcui.hloc": ("hloc", "pip install imcui"),
    "gluefactory": ("gluefactory", "install it from its repository, cvg/glue-factory"),
    "vismatch": ("vismatch", "pip install vismatch"),
    "deep_image_matching": ("deep_image_matching", "pip install deep-image-matching"),
}


def read_options(conf: Mapping[str, Any], ignored: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the options in a host's configuration, without its own keys and None values."""
    return {
        # Configuration libraries have list types of their own.
        name: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in conf.items()
        if name not in ignored and value is not None
    }


def make_feature(conf: Mapping[str, Any], ignored: tuple[str, ...] = ()) -> DiTFFeature:
    """Create a feature from a host's configuration, ignoring the host's own keys."""
    from kornia_ditf.adapters.kornia import DiTFFeature

    options = read_options(conf, ignored)
    return DiTFFeature(options.pop("backbone", DEFAULT_BACKBONE), **options)


def add_module(path: str, make_class: Callable[[], type]) -> None:
    """Register a module with one class at the path where a host's loader looks for it."""
    module = module_from_spec(ModuleSpec(path, loader=None))
    made = make_class()
    made.__module__ = path
    setattr(module, made.__name__, made)
    sys.modules[path] = module
    parent, _, name = path.rpartition(".")
    setattr(import_module(parent), name, module)
