"""The dense descriptor that a host's feature wraps, and how a name becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.registry.lookup import DEFAULT_BACKBONE, create_descriptor


class Pretrained:
    """Adds `from_pretrained`, as Kornia's DISK and DeDoDe and every diffusers model have it."""

    @classmethod
    def from_pretrained(cls, name: str | Path = DEFAULT_BACKBONE, **options: Any) -> Self:
        """Load a dense descriptor by name and wrap it.

        Args:
            name: as for `create_descriptor`: an installed descriptor or backbone, or a hub id or
                folder in the diffusers layout.
            options: of this class (`detector`, `matcher` ...) and of `create_descriptor` (`source`,
                `block`, `dtype`, `device` ...).

        Raises:
            InvalidArgumentError: `name` is a module; pass that to the class itself. Or as the class
                and `create_descriptor`.
            UnknownBackboneError: there is no such descriptor.
            CheckpointError: the weights are incomplete or damaged.
            HubError: the weights cannot be downloaded.
        """
        if not isinstance(name, str | Path):
            raise InvalidArgumentError(
                f"from_pretrained takes a name or a folder, got {type(name).__name__}: "
                f"pass it to {cls.__name__}(...)"
            )
        create: Any = cls
        made: Self = create(name, **options)
        return made


def as_descriptor(descriptor: object, options: Mapping[str, Any]) -> DenseDescriptor:
    """Return a dense descriptor as it is, or create one by its name or folder with options."""
    if isinstance(descriptor, str | Path):
        return create_descriptor(descriptor, **options)
    if not isinstance(descriptor, DenseDescriptor):
        raise InvalidArgumentError(
            "descriptor must be a DenseDescriptor, or the name or folder of one, got "
            f"{type(descriptor).__name__}: subclass kornia_ditf.DenseDescriptor to use your own"
        )
    if options:
        raise InvalidArgumentError(
            f"{', '.join(options)} cannot be applied to an existing descriptor: pass options to "
            "create_descriptor"
        )
    return descriptor
