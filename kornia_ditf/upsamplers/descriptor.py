"""A dense descriptor whose maps are upsampled."""

from __future__ import annotations

from collections.abc import Sequence

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.types import DescriptorMap
from kornia_ditf.types.prepared import PreparedImage
from kornia_ditf.upsamplers.upsampler import Upsampler


class UpsampledDescriptor(DenseDescriptor):
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
        super().__init__()
        self.base, self.upsampler, self.pca = base, upsampler, base.pca

    def extra_repr(self) -> str:
        return f"{self.upsampler}, base={self.base!r}"

    @property
    def width(self) -> int:
        return self.base.width

    @property
    def token_norm(self) -> float | None:
        return self.base.token_norm

    @property
    def identity(self) -> str | None:
        return upsampled_identity(self.base.identity, self.upsampler)

    @property
    def long_side(self) -> int | None:
        return self.base.long_side

    def with_long_side(self, long_side: int) -> UpsampledDescriptor:
        return UpsampledDescriptor(self.base.with_long_side(long_side), self.upsampler)

    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        """Describe an image, or a batch of equally large ones, on the finer grid.

        Arguments, result and errors as `DenseDescriptor.forward`; besides, InvalidArgumentError if
        the map would exceed the upsampler's limit.
        """
        pixels = as_image(image)
        return self._upsample(self.base(pixels, prompts), pixels)

    def describe_together(
        self, images: Sequence[ImageLike], prompts: str | Sequence[str] | None = None
    ) -> list[DescriptorMap]:
        pixels = [as_image(image) for image in images]
        maps = self.base.describe_together(pixels, prompts)
        return [self._upsample(one, image) for one, image in zip(maps, pixels, strict=True)]

    def prepare(self, image: ImageLike) -> PreparedImage:
        return self.base.prepare(image)

    def describe_prepared(
        self, images: Sequence[PreparedImage], prompts: Sequence[str | None]
    ) -> list[DescriptorMap]:
        maps = self.base.describe_prepared(images, prompts)
        return [self._upsample(one, image.pixels) for one, image in zip(maps, images, strict=True)]

    def batch_of(self, image: PreparedImage, batch: int | None = None) -> int:
        return batch or 1  # the maps of a batch are held at once

    def images_ahead(self, batch: int | None = None) -> int:
        return self.base.images_ahead(batch)

    def _upsample(self, described: DescriptorMap, image: ImageLike) -> DescriptorMap:
        return self.upsampler(described, image, token_norm=self.token_norm)


def upsampled_identity(identity: str | None, upsampler: Upsampler) -> str | None:
    """Name all that decides an upsampled descriptor's numbers; None where a part has no name."""
    if identity is None or upsampler.name is None:
        return None
    return f"upsampled {upsampler.name} of {identity}"
