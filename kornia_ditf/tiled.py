"""Large images described in overlapping tiles, as one map of many tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kornia_ditf.dense import DenseDescriptor, one_prompt_each
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.fusion import FusedDescriptor
from kornia_ditf.preprocess import ImageLike, as_image, fit_image
from kornia_ditf.types import DescriptorMap, Discarded
from kornia_ditf.utils.checks import check_integer

_OVERLAP = 0.25


class TiledDescriptor(DenseDescriptor):
    """Describe images in tiles, at a multiple of a descriptor's resolution.

    An image is fitted to `tiles` times the descriptor's longest side, but not enlarged for it, and
    described in square tiles of that side. Neighbouring tiles overlap, and there their descriptors
    are blended with weights that fall to the tile's border. Memory is that of one tile and of the
    resulting map.

    Args:
        base: the descriptor; it must resize images (have a `long_side`).
        tiles: how many tiles' sides the longest side is worth, at least 1.
        multiple: pixels that a tile's sides are multiples of: the base's pixels per token.
        overlap: of neighbouring tiles at least, as a part of a tile's side, in (0, 0.5].

    Raises:
        InvalidArgumentError: the base keeps the size of images, or a number is out of range.

    Example:
        >>> from kornia_ditf import create_descriptor
        >>> tiled = create_descriptor("nano", long_side=64, tiles=3)
        >>> tiled(torch.rand(1, 3, 200, 300)).grid, tiled.base(torch.rand(1, 3, 200, 300)).grid
        ((32, 48), (11, 16))
    """

    def __init__(
        self, base: DenseDescriptor, tiles: int, *, multiple: int, overlap: float = _OVERLAP
    ) -> None:
        super().__init__()
        check_integer("tiles", tiles, minimum=1)
        check_integer("multiple", multiple, minimum=1)
        if not 0 < overlap <= 0.5:
            raise InvalidArgumentError(f"overlap must lie in (0, 0.5], got {overlap!r}")
        if base.long_side is None:
            raise InvalidArgumentError(
                "tiles need a longest side, and this descriptor keeps the size of images: set "
                "its long_side"
            )
        self.base, self.tiles, self.multiple, self.overlap = base, tiles, multiple, overlap
        self.pca = base.pca

    def extra_repr(self) -> str:
        return f"tiles={self.tiles}, overlap={self.overlap}, base={self.base!r}"

    @property
    def width(self) -> int:
        return self.base.width

    @property
    def identity(self) -> str | None:
        if self.base.identity is None:
            return None
        return f"tiled {self.tiles} {self.multiple} {self.overlap} of {self.base.identity}"

    @property
    def long_side(self) -> int | None:
        return self._side * self.tiles

    @property
    def _side(self) -> int:
        side = self.base.long_side or self.multiple
        return max(1, round(side / self.multiple)) * self.multiple

    def with_long_side(self, long_side: int) -> TiledDescriptor:
        side = max(self.multiple, round(long_side / self.tiles))
        return self.of(self.base.with_long_side(side))

    def forward(
        self, image: ImageLike, prompts: str | Sequence[str] | None = None
    ) -> DescriptorMap:
        """Describe an image, or a batch of equally large ones, tile by tile.

        Arguments, result and errors as `DenseDescriptor.forward`.
        """
        pixels = as_image(image)
        side = min(self._side * self.tiles, max(pixels.shape[2:]))
        if side <= self._side:
            described: DescriptorMap = self.base(pixels, prompts)
            return described
        base = _settled(self.base, [one[None] for one in pixels], prompts)
        fitted, frame = fit_image(pixels, side, self.multiple)
        rows, columns = (self._starts(length) for length in fitted.shape[2:])
        data = weight = torch.zeros(0, device="cpu")
        discarded: tuple[Discarded, ...] = ()
        parts: tuple[int, ...] = ()
        for top in rows:
            for left in columns:
                tile = fitted[:, :, top : top + self._side, left : left + self._side]
                maps = base.with_long_side(max(tile.shape[2:]))(tile, prompts)
                pitch = max(1, tile.shape[2] // maps.grid[0])
                if maps.grid != (tile.shape[2] // pitch, tile.shape[3] // pitch) or (
                    top % pitch or left % pitch
                ):
                    raise InvalidArgumentError(
                        f"a tile of {tile.shape[3]} x {tile.shape[2]} px has a grid of "
                        f"{maps.grid}, not a token for each square of pixels: leave out tiles"
                    )
                if not data.numel():
                    grid = [length // pitch for length in fitted.shape[2:]]
                    data = maps.data.new_zeros(len(fitted), maps.data.shape[1], *grid)
                    weight = maps.data.new_zeros(grid)
                    discarded, parts = maps.discarded, maps.parts
                ramps = [self._ramp(count, pitch) for count in maps.grid]
                faded = (ramps[0][:, None] * ramps[1]).to(maps.data)
                y, x = top // pitch, left // pitch
                place = (slice(y, y + maps.grid[0]), slice(x, x + maps.grid[1]))
                data[:, :, *place] += maps.data * faded
                weight[place] += faded
        return DescriptorMap(data.div_(weight), frame, discarded, parts=parts)

    def describe_together(
        self, images: Sequence[ImageLike], prompts: str | Sequence[str] | None = None
    ) -> list[DescriptorMap]:
        pixels = [as_image(image) for image in images]
        texts = one_prompt_each(prompts, len(images))
        tiled = self.of(_settled(self.base, pixels, prompts))
        return [tiled(image, prompt) for image, prompt in zip(pixels, texts, strict=True)]

    def of(self, base: DenseDescriptor) -> TiledDescriptor:
        """Return the same tiles of another descriptor."""
        return TiledDescriptor(base, self.tiles, multiple=self.multiple, overlap=self.overlap)

    def _starts(self, length: int) -> list[int]:
        """Return where the tiles begin along an axis, evenly, at whole multiples."""
        if length <= self._side:
            return [0]
        step = self._side * (1 - self.overlap)
        count = -(-(length - self._side) // max(self.multiple, int(step))) + 1
        last = (length - self._side) // self.multiple
        return [round(last * number / (count - 1)) * self.multiple for number in range(count)]

    def _ramp(self, count: int, pitch: int) -> Tensor:
        """Return a tile's weights along an axis: 1 in the middle, falling in the overlaps."""
        reach = max(1.0, self._side * self.overlap / pitch)
        place = torch.arange(count, device="cpu") + 0.5
        # Squared, as what a tile says near its border knows least of what lies around.
        return (torch.minimum(place, count - place) / reach).clamp(max=1) ** 2


def _settled(
    base: DenseDescriptor, images: Sequence[ImageLike], prompts: str | Sequence[str] | None
) -> DenseDescriptor:
    """Find massive channels that are not known once, in whole images, and not tile by tile."""

    def find(ditf: DiTF) -> tuple[int, ...] | None:
        if not ditf.config.steps.discards or ditf.massive_channels() is not None:
            return None
        other = DiTF(ditf.backbone, ditf.config)  # the given one stays as it is
        return other.describe_together(images, prompts)[0].discarded[0].channels

    return with_channels(base, find, "configuration")


def transformers_of(descriptor: DenseDescriptor) -> Iterator[DiTF]:
    """Iterate over every DiTF of which a descriptor is made."""
    if isinstance(descriptor, DiTF):
        yield descriptor
    elif isinstance(descriptor, TiledDescriptor):
        yield from transformers_of(descriptor.base)
    elif isinstance(descriptor, FusedDescriptor):
        for part in descriptor.descriptors:
            yield from transformers_of(part)


def with_channels(
    descriptor: DenseDescriptor,
    channels_of: Callable[[DiTF], tuple[int, ...] | None],
    source: str,
) -> DenseDescriptor:
    """Return a descriptor that discards the same massive channels in every image.

    Args:
        descriptor: the weights are shared.
        channels_of: returns those of a DiTF; it is called for each, in their order. None, and
            channels that its configuration names, change nothing.
        source: where the channels come from.
    """
    if isinstance(descriptor, TiledDescriptor):
        return descriptor.of(with_channels(descriptor.base, channels_of, source))
    if isinstance(descriptor, FusedDescriptor):
        return descriptor.of(
            [with_channels(p, channels_of, source) for p in descriptor.descriptors]
        )
    if not isinstance(descriptor, DiTF):
        return descriptor
    channels, config = channels_of(descriptor), descriptor.config
    if channels is None or config.massive_channels is not None:
        return descriptor
    settled = DiTF(descriptor.backbone, replace(config, massive_channels=channels))
    settled.channels_from, settled.preset = source, descriptor.preset
    return settled
