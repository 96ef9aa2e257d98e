"""What the entry points of this package lead to: one callable per descriptor and per matcher.

A host that knows only `importlib.metadata` finds them in the groups `kornia.dense_descriptors` and
`kornia.dense_matchers`. Loading an entry loads no library; calling it does. Each takes the options
of `create_descriptor` or `create_matcher` and gives the module.

`descriptors.nano` and `matchers.nano` are such callables, and so for every name that is installed,
a plugin's too, written as an identifier.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kornia_ditf.adapters.kornia import DiTFDescriptor
    from kornia_ditf.adapters.kornia_matcher import DiTFMatcher


def descriptor_entry(name: str) -> Callable[..., DiTFDescriptor]:
    """Make the callable for an entry in `kornia.dense_descriptors`: options in, the module out.

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
    """Make the callable for an entry in `kornia.dense_matchers`: options in, the module out."""

    def create(**options: Any) -> DiTFMatcher:
        from kornia_ditf.adapters.kornia_matcher import create_matcher

        return create_matcher(name, **options)

    return create


class Entries:
    """Callables for every installed name, as attributes: the name written as an identifier.

    Args:
        make: what makes the callable of a name.
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
    """Write a descriptor's name as an identifier: all but letters and digits becomes `_`.

    Example:
        >>> identifier("flux.1-dev")
        'flux_1_dev'
    """
    return re.sub(r"\W", "_", name)
