"""What the entry points of this package lead to: one callable per descriptor and per matcher.

A host that knows only `importlib.metadata` finds them in the groups `kornia.dense_descriptors` and
`kornia.dense_matchers`. Loading an entry loads no library; calling it does. Each takes the options
of `create_descriptor` or `create_matcher` and gives the module.
"""

from __future__ import annotations

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

    return _named(create, name, "create_descriptor")


def matcher_entry(name: str) -> Callable[..., DiTFMatcher]:
    """Make the callable for an entry in `kornia.dense_matchers`: options in, the module out."""

    def create(**options: Any) -> DiTFMatcher:
        from kornia_ditf.adapters.kornia_matcher import create_matcher

        return create_matcher(name, **options)

    return _named(create, name, "create_matcher")


def _named(create: Callable[..., Any], name: str, origin: str) -> Callable[..., Any]:
    create.__doc__ = f"Load {name!r} as a Kornia module; takes the options of {origin}."
    return create


nano = descriptor_entry("nano")
dit_xl_2_256 = descriptor_entry("dit-xl-2-256")
dit_xl_2_512 = descriptor_entry("dit-xl-2-512")
pixart_alpha_512 = descriptor_entry("pixart-alpha-512")
pixart_alpha_1024 = descriptor_entry("pixart-alpha-1024")
pixart_sigma_1024 = descriptor_entry("pixart-sigma-1024")
sd3_medium = descriptor_entry("sd3-medium")
sd35_medium = descriptor_entry("sd3.5-medium")
sd35_large = descriptor_entry("sd3.5-large")
flux1_dev = descriptor_entry("flux.1-dev")
flux1_schnell = descriptor_entry("flux.1-schnell")

nano_matcher = matcher_entry("nano")
dit_xl_2_256_matcher = matcher_entry("dit-xl-2-256")
dit_xl_2_512_matcher = matcher_entry("dit-xl-2-512")
pixart_alpha_512_matcher = matcher_entry("pixart-alpha-512")
pixart_alpha_1024_matcher = matcher_entry("pixart-alpha-1024")
pixart_sigma_1024_matcher = matcher_entry("pixart-sigma-1024")
sd3_medium_matcher = matcher_entry("sd3-medium")
sd35_medium_matcher = matcher_entry("sd3.5-medium")
sd35_large_matcher = matcher_entry("sd3.5-large")
flux1_dev_matcher = matcher_entry("flux.1-dev")
flux1_schnell_matcher = matcher_entry("flux.1-schnell")
