"""A projection of descriptors onto principal components, and its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.utils.files import atomic_write, read_sealed, save_sealed

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """A fixed PCA for all images: descriptors minus their mean, times axes.

    Args:
        mean: of the descriptors it was learned from, shape (D,), float32.
        axes: orthonormal columns, those of the largest variance first, shape (D, K), float32.
        variances: of the K components, float32.
        total: variance of all D components.
        space: what decides the meaning of the D channels: weights, block, timestep ...
        channels: the massive channels that were discarded, for each DiTF of which the descriptor is
            made; None for one that discards none.
        about: how it was learned.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor
    total: float
    space: Mapping[str, Any]
    channels: tuple[tuple[int, ...] | None, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        width, kept = self.axes.shape
        return f"Projection({width} to {kept} channels, {self.explained:.1%} of the variance)"

    @property
    def width(self) -> int:
        """Channels K of projected descriptors."""
        return self.axes.shape[1]

    @property
    def explained(self) -> float:
        """Share of the variance that the components hold, in [0, 1]."""
        return float(self.variances.double().sum()) / max(self.total, 1e-30)

    @property
    def digest(self) -> str:
        """Digest of the numbers, by which caches tell projections apart."""
        found = hashlib.sha256(json.dumps(self.channels).encode())
        for values in (self.mean, self.axes):
            found.update(values.contiguous().view(torch.uint8).numpy().data)
        return found.hexdigest()[:32]

    def first(self, width: int) -> Projection:
        """Return the projection onto the first components alone.

        Raises:
            InvalidArgumentError: there are fewer.
        """
        check_integer("width", width, minimum=1, maximum=self.width)
        return replace(self, axes=self.axes[:, :width], variances=self.variances[:width])

    def __call__(self, described: DescriptorMap) -> DescriptorMap:
        """Project the descriptors of images.

        Args:
            described: with D channels.

        Returns:
            the maps with K channels, float32.

        Raises:
            InvalidArgumentError: they have another number of channels.
        """
        data = described.data.float()
        if data.shape[1] != len(self.mean):
            raise InvalidArgumentError(
                f"the projection takes descriptors of {len(self.mean)} channels, got "
                f"{data.shape[1]}: it was learned for {json.dumps(dict(self.space))}"
            )
        mean, axes = self.mean.to(data.device), self.axes.to(data.device)
        with torch.autocast(data.device.type, enabled=False):
            projected = torch.einsum("bdhw,dk->bkhw", data - mean[:, None, None], axes)
        return replace(described, data=projected, discarded=(), parts=())

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all; equal projections give equal bytes.

        Raises:
            OutputError: the file cannot be written.
        """
        tensors = {"mean": self.mean, "axes": self.axes, "variances": self.variances}
        metadata = {name: getattr(self, name) for name in ("total", "space", "channels", "about")}
        with atomic_write(path) as temporary:
            sealed = {name: values.contiguous() for name, values in tensors.items()}
            save_sealed(temporary, sealed, {"kornia_ditf_projection": FORMAT, **metadata})

    @staticmethod
    def load(path: str | Path) -> Projection:
        """Read what `save` wrote.

        Raises:
            InvalidArgumentError: there is no such file, or it holds no projection.
            DamagedFileError: it was changed or cut short.
        """
        tensors, metadata = read_sealed(Path(path).expanduser())
        if metadata.get("kornia_ditf_projection") != FORMAT:
            raise InvalidArgumentError(
                f"{path} holds no projection of this version; `kornia-ditf projection learn` "
                "writes one"
            )
        try:
            channels = (None if each is None else tuple(each) for each in metadata["channels"])
            return Projection(
                **{name: tensors[name].float() for name in ("mean", "axes", "variances")},
                total=float(metadata["total"]),
                space=dict(metadata["space"]),
                channels=tuple(channels),
                about=dict(metadata["about"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(Path(path), f"it holds no projection: {error!r}") from error
