"""A dense descriptor whose maps are upsampled."""

from __future__ import annotations

from torch import Tensor

from kornia_ditf.dense import DenseDescriptor, DerivedDescriptor
from kornia_ditf.types import DescriptorMap
from kornia_ditf.types.prepared import PreparedImage
from kornia_ditf.upsamplers.upsampler import Upsampler


class UpsampledDescriptor(DerivedDescriptor):
    """Describe images, and upsample their maps to a finer grid.

    Args:
        base: the descriptor.
        upsampler: what upsamples its maps, and how much.

    Example:
        >>> from kornia_ditf import create_descriptor
        >>> fine = create_descriptor("nano", long_side=64, upsample="joint_bilateral(2)")
        >>> fine.base(torch.rand(1, 3, 48, 64)).grid, fine(torch.rand(1, 3, 48, 64)).grid
        ((12, 16), (24, 32))
    """

    def __init__(self, base: DenseDescriptor, upsampler: Upsampler) -> None:
        super().__init__(base)
        self.upsampler = upsampler

    def extra_repr(self) -> str:
        return f"{self.upsampler}, base={self.base!r}"

    @property
    def token_norm(self) -> float | None:
        return self.base.token_norm

    @property
    def identity(self) -> str | None:
        return upsampled_identity(self.base.identity, self.upsampler)

    def of(self, base: DenseDescriptor) -> UpsampledDescriptor:
        return UpsampledDescriptor(base, self.upsampler)

    def derive(self, described: DescriptorMap, pixels: Tensor) -> DescriptorMap:
        return self.upsampler(described, pixels, token_norm=self.token_norm)

    def batch_of(self, image: PreparedImage, batch: int | None = None) -> int:
        return batch or 1  # the maps of a batch are held at once


def upsampled_identity(identity: str | None, upsampler: Upsampler) -> str | None:
    """Identify an upsampled descriptor for caches; None if a part has no identity."""
    if identity is None or upsampler.name is None:
        return None
    return f"upsampled {upsampler.name} of {identity}"
