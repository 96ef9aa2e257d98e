"""What `kornia-ditf extract` describes images with, in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from kornia_ditf.cli import options, output
from kornia_ditf.errors import CaptureError, ImageError, InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.dense import DenseDescriptor
    from kornia_ditf.types import DescriptorMap
    from kornia_ditf.types.prepared import PreparedImage

BAD_IMAGE = (ImageError, InvalidArgumentError, CaptureError)
"""Errors of a single image, which the others do not share."""

SETTINGS = (
    *("name", "identity", "descriptor_blocks", "timestep", "treatment"),
    *("joined_blocks", "timesteps", "facet", "projection", "long_side", "options", "settings"),
    *("upsample", "ensemble", "prompt", "seed", "dtype", "massive_channels", "stored_as"),
)
"""Files that agree in these were made with the same settings."""

_CALIBRATION_IMAGES = 4


@dataclass(frozen=True, slots=True)
class Request:
    """What to describe with, and how to store it.

    Args:
        chosen: the command's options.
        blocks: which to store; the preset's where there are none.
        store: the format of stored descriptors; see `encode`.
        batch: how many images of one size to describe together; None for what suits the device.
        overwrite: describe what is there already.
    """

    chosen: options.Chosen
    blocks: Sequence[int]
    store: str
    batch: int | None = None
    overwrite: bool = False


class Describer:
    """The loaded descriptor of a request; raises as `Chosen.load`.

    `find_channels` settles `channels`, by block, and `made`, the settings stored with every map.
    """

    def __init__(self, request: Request) -> None:
        from kornia_ditf.cli import settings
        from kornia_ditf.descriptor import DiTF

        self.request, chosen = request, request.chosen
        self.spec = chosen.spec()
        self.fitting = chosen.fitting(self.spec)
        self.descriptor = chosen.load(self.spec)
        self.blocks, base = list(request.blocks), settings.unwrapped(self.descriptor)
        if isinstance(base, DiTF):
            self.blocks = self.blocks or list(base.config.all_blocks)
        given = [chosen.prompt] if chosen.prompt else []
        self.text: Any = settings.prompts_of(self.descriptor, given)
        self.channels: dict[str, list[int]] = {}
        self.origin = ""
        self.made: dict[str, Any] = {}

    def find_channels(self, images: Iterable[Tensor]) -> None:
        """Settle which channels every image does without, by block.

        Args:
            images: if the channels are not known, they are found in the first four of these.
        """
        from kornia_ditf.cli import settings
        from kornia_ditf.descriptor import DiTF

        ditf = settings.unwrapped(self.descriptor)
        _, self.origin = settings.known_channels(ditf)
        if isinstance(ditf, DiTF) and ditf.config.steps.discards:
            times, single = ditf.config.all_timesteps, ditf.config.single
            cells = {b: [ditf] if single else [ditf.at(b, t) for t in times] for b in self.blocks}
            every = [(cell, block) for block, some in cells.items() for cell in some]
            missing = [(cell, b) for cell, b in every if cell.massive_channels(b) is None]
            first = list(islice(images, _CALIBRATION_IMAGES)) if missing else []
            for cell, block in missing if first else ():
                cell.calibrate(first, block=block, keep=False)
            if missing:
                found = f"found in the first {len(first)} image{'s' if len(first) > 1 else ''}"
                self.origin = found if first else "no image"
            self.channels = {
                str(b): sorted({c for cell in some for c in cell.massive_channels(b) or ()})
                for b, some in cells.items()
            }
        self.made = {
            **settings.as_values(self.request.chosen, self.spec, self.descriptor),
            "descriptor_blocks": self.blocks,
            "massive_channels": self.channels,
            "massive_channels_from": self.origin,
            "stored_as": self.request.store,
            "versions": output.versions(),
        }
        self.made.pop("block", None)
        del self.made["embedded_default"]

    def kind(self, image: PreparedImage) -> tuple[Any, int]:
        """Return the size of an image, and how many of it are described together."""
        return image.pixels.shape, self.descriptor.batch_of(image, self.request.batch)

    def describe(
        self, images: Sequence[PreparedImage], descriptor: DenseDescriptor | None = None
    ) -> Iterator[dict[str, DescriptorMap]]:
        """Describe images of one size, and name what is stored of each.

        Args:
            images: what the descriptor prepared.
            descriptor: another in its place, such as one of clips.
        """
        from kornia_ditf.descriptor import DiTF

        descriptor = descriptor or self.descriptor
        if isinstance(descriptor, DiTF) and descriptor.config.blocks is None:
            name = "descriptors" if len(self.blocks) == 1 else "block_{}"
            by_block = descriptor.describe_prepared_blocks(images, self.blocks)
            return ({name.format(b): maps[b] for b in self.blocks} for maps in by_block)
        maps = descriptor.describe_prepared(images, [self.text] * len(images))
        return ({"descriptors": one} for one in maps)

    def encode(
        self, maps: Mapping[str, DescriptorMap], label: str
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors that are stored of an image, and what its maps say of them.

        Raises:
            InvalidArgumentError: the image's values, or its descriptors in this format, are not
                finite.
            CaptureError: a block's input was not finite.
        """
        from kornia_ditf.types.storage import encode

        first = next(iter(maps.values()))
        first.check()
        tensors = {name: described.data[0] for name, described in maps.items()}
        return encode(tensors, self.request.store, of=f"the descriptors of {label}"), first.about()


def differing(found: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """Return the names of settings in which stored descriptors differ from new ones."""
    return [name for name in SETTINGS if found.get(name) != made.get(name)]
