"""The dense descriptor that a host's feature wraps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.registry.lookup import create_descriptor


def as_descriptor(descriptor: object, options: Mapping[str, Any]) -> DenseDescriptor:
    """Return a dense descriptor as it is, or create one by name.

    Args:
        descriptor: a dense descriptor, or a name or folder for `create_descriptor`.
        options: of `create_descriptor`; empty for a descriptor that exists already.

    Raises:
        InvalidArgumentError: another type, or options for an existing descriptor; or as
            `create_descriptor`.
    """
    if isinstance(descriptor, str | Path):
        return create_descriptor(descriptor, **options)
    if not isinstance(descriptor, DenseDescriptor):
        raise InvalidArgumentError(
            "descriptor must be a DenseDescriptor, or the name or folder of one, got "
            f"{type(descriptor).__name__}: subclass kornia_ditf.DenseDescriptor to use your own"
        )
    if options:
        raise InvalidArgumentError(
            f"{', '.join(options)} cannot change a descriptor that exists already: "
            "pass options to create_descriptor"
        )
    return descriptor
