"""Finding upsamplers by name, those of plugins among them."""

from __future__ import annotations

from typing import Any

from kornia_ditf.registry.catalogue import Catalogue
from kornia_ditf.upsamplers import UPSAMPLERS, Upsampler, UpsamplerSpec, parse_upsampler

NONE = "none"

CATALOGUE = Catalogue(UPSAMPLERS, {"register_upsamplers": UpsamplerSpec})


def list_upsamplers() -> dict[str, UpsamplerSpec]:
    """List the upsamplers by name, built-in ones first, without loading any.

    Example:
        >>> list(list_upsamplers())[:4]
        ['bilinear', 'joint_bilateral', 'anyup', 'featup']
    """
    return CATALOGUE.specs()


def find_upsampler(text: Any) -> Upsampler | None:
    """Parse the option `upsample`, including upsamplers of plugins; `none` and None mean none.

    Args:
        text: as for `parse_upsampler`, of any installed upsampler; an `Upsampler`; or a function
            or module for one, which enlarges twice.

    Raises:
        InvalidArgumentError: there is no such upsampler, or a value is wrong.
        MissingExtraError: a package that it needs is not installed.
    """
    if text is None or text == NONE:
        return None
    if isinstance(text, Upsampler):
        return text
    if not isinstance(text, str):
        return Upsampler(text)
    name = text.split("(")[0].strip()
    if any(spec.name == name for spec in UPSAMPLERS):  # no plugin need be asked
        return parse_upsampler(text)
    return parse_upsampler(text, list_upsamplers().values())
