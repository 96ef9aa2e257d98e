"""Options of descriptors and matchers, checked by name before anything is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import UnknownBackboneError
from kornia_ditf.fusion import Fusion, options_of_parts
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.matchers.base import check_shared
from kornia_ditf.registry.lookup import DITF_OPTIONS, find_descriptor
from kornia_ditf.registry.matchers import OF_DESCRIPTORS, descriptor_of, find_matcher, split_options
from kornia_ditf.registry.options import check_options
from kornia_ditf.registry.treatments import read_config

_OF_ALL = ("source", "tiles", "upsample", "pca", "projection", "preset")


def check_descriptor(
    owner: str, name: str, options: Mapping[str, Any], of_all: Collection[str] = _OF_ALL
) -> None:
    """Check the options of `create_descriptor`, for each part of a fusion, and load nothing.

    Args:
        owner: what an error calls the descriptor.
        name: of it. A part of a fusion whose plugin is not installed is not checked.
        options: that it would be made with.
        of_all: names of options that every descriptor has, which are not checked.

    Raises:
        InvalidArgumentError: there is no such option or part, or a value is out of range.
    """
    spec = find_descriptor(name, **hub_options(options))
    own = {key: value for key, value in options.items() if key not in of_all}
    if isinstance(spec, Fusion):
        shared = {key: own[key] for key in own if key not in ("weights", "grid", "options")}
        for part, chosen in options_of_parts(spec, own.get("options", {}), shared):
            try:
                check_descriptor(f"{owner}, {part}", part, chosen)
            except UnknownBackboneError:
                continue
        return
    if isinstance(spec, BackboneSpec):
        read_config(spec, {key: own.pop(key) for key in DITF_OPTIONS & own.keys()})
    check_options(owner, spec, own)


def check_matcher(owner: str, name: str, options: Mapping[str, Any]) -> None:
    """Check the options of `load_matcher`, and load nothing.

    Args:
        owner: what an error calls the matcher.
        name: as there.
        options: likewise.

    Raises:
        UnknownBackboneError: there is no such matcher.
        InvalidArgumentError: there is no such option, or a value is out of range.
    """
    spec = find_matcher(name)
    shared, own = split_options(spec, options)
    check_shared(shared)
    described = descriptor_of(spec)
    if described is None:
        check_options(owner, spec, own)
    else:
        own = {key: value for key, value in own.items() if key not in OF_DESCRIPTORS}
        check_descriptor(owner, described, own)
