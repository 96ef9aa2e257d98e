"""A descriptor whose channels are projected, and the check that a projection belongs to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from kornia_ditf.dense import DenseDescriptor, DerivedDescriptor
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.fusion import FusedDescriptor
from kornia_ditf.projection.stored import Projection
from kornia_ditf.tiled import TiledDescriptor, transformers_of, with_channels
from kornia_ditf.types import DescriptorMap

_NAMES = re.compile(r"(?:^|(?<= ))[^@]*@")
"""What the digests of weights are preceded by: a folder's name says nothing of what is in it."""


class ProjectedDescriptor(DerivedDescriptor):
    """A dense descriptor whose channels are reduced by a fixed projection.

    Args:
        base: the descriptor. Massive channels that it does not know are those that were discarded
            when the projection was learned.
        projection: learned for this descriptor, or the file of one.

    Raises:
        InvalidArgumentError: the projection was learned for other weights or settings.
        DamagedFileError: the file is damaged.

    Example:
        >>> from kornia_ditf import create_descriptor, learn_projection
        >>> nano = create_descriptor("nano", long_side=64)
        >>> projection = learn_projection(nano, [torch.rand(3, 64, 64)], 16)
        >>> ProjectedDescriptor(nano, projection)(torch.rand(3, 64, 64)).data.shape
        torch.Size([1, 16, 16, 16])
    """

    def __init__(self, base: DenseDescriptor, projection: Projection | str | Path) -> None:
        name = "the projection" if isinstance(projection, Projection) else str(projection)
        if not isinstance(projection, Projection):
            projection = Projection.load(projection)
        _check_space(base, projection, name)
        known = iter(projection.channels)
        super().__init__(with_channels(base, lambda _: next(known, None), "projection"))
        self.projection, self.pca = projection, 0

    def extra_repr(self) -> str:
        return f"{self.projection!r}, base={self.base!r}"

    @property
    def width(self) -> int:
        return self.projection.width

    @property
    def identity(self) -> str | None:
        base = self.base.identity
        return None if base is None else f"projected {self.projection.digest} of {base}"

    def of(self, base: DenseDescriptor) -> ProjectedDescriptor:
        other = ProjectedDescriptor(base, self.projection)
        other.pca = self.pca
        return other

    def derive(self, described: DescriptorMap, pixels: Tensor) -> DescriptorMap:
        return self.projection(described)


def feature_space(descriptor: DenseDescriptor) -> dict[str, Any]:
    """Return what decides the meaning of a descriptor's channels, as JSON values.

    The size of images, the number of noise draws and the dtype of the weights do not.

    Raises:
        InvalidArgumentError: the descriptor is projected already.
    """
    if isinstance(descriptor, ProjectedDescriptor):
        raise InvalidArgumentError("the descriptor is already projected; pass its base")
    if isinstance(descriptor, TiledDescriptor):
        return feature_space(descriptor.base)
    if isinstance(descriptor, FusedDescriptor):
        parts = [feature_space(part) for part in descriptor.descriptors]
        return {"parts": parts, "weighed": list(descriptor.weights)}
    if not isinstance(descriptor, DiTF):
        return {"weights": descriptor.identity}
    config, identity = descriptor.config, descriptor.backbone.identity
    return {
        "weights": None if identity is None else _NAMES.sub("", identity),
        "block": list(config.all_blocks),
        "timestep": [float(timestep) for timestep in config.all_timesteps],
        "treatment": str(config.treatment),
        "facet": config.facet,
    }


def _check_space(base: DenseDescriptor, projection: Projection, name: str) -> None:
    own, wanted = feature_space(base), dict(projection.space)
    for found, expected in zip(_flat(own), _flat(wanted), strict=False):
        for key in expected.keys() | found.keys():
            mine, its = found.get(key), expected.get(key)
            if mine != its and not (key == "weights" and None in (mine, its)):
                raise InvalidArgumentError(
                    f"{name} was learned for {key} {_shown(its)}, and this descriptor has "
                    f"{_shown(mine)}; give it the same settings, or learn one for it "
                    "(`kornia-ditf projection learn`)"
                )
    if base.width != len(projection.mean):
        raise InvalidArgumentError(
            f"{name} takes descriptors of {len(projection.mean)} channels, and these have "
            f"{base.width}"
        )
    for ditf, channels in zip(transformers_of(base), projection.channels, strict=False):
        configured = ditf.config.massive_channels
        known = ditf.massive_channels() if configured == "gates" else configured
        if channels is not None and known is not None and set(known) != set(channels):
            raise InvalidArgumentError(
                f"{name} was learned without the massive channels {list(channels)}, and this "
                f"descriptor discards {sorted(known)}"
            )


def _flat(space: dict[str, Any]) -> list[dict[str, Any]]:
    own = {key: value for key, value in space.items() if key != "parts"}
    parts = space.get("parts", [])
    return [{**own, "number of parts": len(parts)}, *(one for p in parts for one in _flat(p))]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
