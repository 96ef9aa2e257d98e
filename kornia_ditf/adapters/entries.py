"""Entry points for hosts that do not import this package: a callable per descriptor and matcher.

They are declared in the groups `kornia.dense_descriptors` and `kornia.dense_matchers`. Each takes
the options of `create_descriptor` or `create_matcher` and returns a Kornia module. Loading an entry
imports no library; calling it does.

`descriptors.nano` and `matchers.nano` are such callables; every installed name, including those of
plugins, is available as an attribute, written as an identifier.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kornia_ditf.adapters.kornia import DiTFDescriptor
    from kornia_ditf.adapters.kornia_matcher import DiTFMatcher


def descriptor_entry(name: str) -> Callable[..., DiTFDescriptor]:
    """Create the callable of an entry in `kornia.dense_descriptors`.

    Example:
        >>> create = descriptor_entry("nano")
        >>> create(treatment="raw", long_side=96).dense(torch.rand(1, 3, 64, 96)).ndim
        4
    """

    def create(**options: Any) -> DiTFDescriptor:
        from kornia_ditf.adapters.kornia import DiTFDescriptor

        return DiTFDescriptor(name, **options)

    return create


def matcher_entry(name: str) -> Callable[..., DiTFMatcher]:
    """Create the callable of an entry in `kornia.dense_matchers`."""

    def create(**options: Any) -> DiTFMatcher:
        from kornia_ditf.adapters.kornia_matcher import create_matcher

        return create_matcher(name, **options)

    return create


class Entries:
    """A callable per installed name, as attributes named by the name's identifier.

    Args:
        make: creates the callable of a name.
    """

    def __init__(self, make: Callable[[str], Callable[..., Any]]) -> None:
        self._make = make

    def __getattr__(self, wanted: str) -> Callable[..., Any]:
        if wanted.startswith("_"):
            raise AttributeError(f"there is no entry {wanted!r}")

        def create(**options: Any) -> Any:
            from kornia_ditf.registry.lookup import list_descriptors

            names = (name for name in list_descriptors() if identifier(name) == wanted)
            return self._make(next(names, wanted))(**options)

        return create


descriptors = Entries(descriptor_entry)
matchers = Entries(matcher_entry)


def identifier(name: str) -> str:
    """Return a descriptor's name with all but letters and digits replaced by `_`.

    Example:
        >>> identifier("flux.1-dev")
        'flux_1_dev'
    """
    return re.sub(r"\W", "_", name)
