"""What `kornia-ditf extract` describes images with, in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from kornia_ditf.cli import options, output

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
    from kornia_ditf.types import DescriptorMap
    from kornia_ditf.types.prepared import PreparedImage

_CALIBRATION_IMAGES = 4
# Files that agree in these were made with the same settings.
SETTINGS = (
    *("name", "identity", "descriptor_blocks", "timestep", "treatment"),
    *("joined_blocks", "timesteps", "facet", "projection", "long_side", "options", "settings"),
    *("upsample", "ensemble", "prompt", "seed", "dtype", "massive_channels", "stored_as"),
)


@dataclass(slots=True, kw_only=True)
class Describer:
    """A loaded descriptor, and how its maps are stored.

    Args:
        chosen: the command's options.
        spec: of the descriptor.
        descriptor: itself.
        blocks: which to store.
        told: the prompt of each image, where the descriptor does not keep it.
        store: the format of stored descriptors; see `encode`.
        batch: how many images of one size to describe together; None for what suits the device.
        channels: massive channels by block, once `find_channels` has settled them.
        origin: where those come from.
    """

    chosen: options.Chosen
    spec: BackboneSpec | DescriptorSpec
    descriptor: DenseDescriptor
    blocks: list[int]
    told: Any
    store: str
    batch: int | None
    channels: dict[str, list[int]] = field(default_factory=dict)
    origin: str = ""

    @classmethod
    def load(
        cls,
        chosen: options.Chosen,
        spec: BackboneSpec | DescriptorSpec,
        *,
        blocks: Sequence[int],
        store: str,
        batch: int | None,
    ) -> Describer:
        """Load the descriptor; raises as `Chosen.load`."""
        from kornia_ditf.cli import settings
        from kornia_ditf.descriptor import DiTF

        descriptor = chosen.load(spec)
        found, base = list(blocks), settings.unwrapped(descriptor)
        if isinstance(base, DiTF):
            found = found or list(base.config.all_blocks)
        return cls(
            chosen=chosen,
            spec=spec,
            descriptor=descriptor,
            blocks=found,
            told=settings.told(descriptor, [chosen.prompt] if chosen.prompt else []),
            store=store,
            batch=batch,
        )

    @property
    def fitting(self) -> tuple[int | None, int]:
        """The long side, None for an image's own size, and the pixels of a token's side."""
        return options.side_in_pixels(self.chosen.long_side, self.spec), self.spec.pixels_per_token

    def batch_of(self, image: PreparedImage) -> int:
        """Return how many images like this one are described together."""
        return self.descriptor.batch_of(image, self.batch)

    def find_channels(self, images: Iterable[Tensor]) -> None:
        """Settle which channels every image does without, by block.

        Args:
            images: if the channels are not known, they are found in the first four of these.
        """
        from kornia_ditf.cli.settings import known_channels, unwrapped
        from kornia_ditf.descriptor import DiTF

        ditf = unwrapped(self.descriptor)
        _, self.origin = known_channels(ditf)
        if not isinstance(ditf, DiTF) or not ditf.config.steps.discards:
            return
        several = not ditf.config.single
        cells = {
            block: [ditf.at(block, t) for t in ditf.config.all_timesteps] if several else [ditf]
            for block in self.blocks
        }
        missing = [
            (cell, block)
            for block in self.blocks
            for cell in cells[block]
            if cell.massive_channels(block) is None
        ]
        if missing:
            first = list(islice(images, _CALIBRATION_IMAGES))
            for cell, block in missing if first else ():
                cell.calibrate(first, block=block, keep=False)
            plural = "s" if len(first) > 1 else ""
            found = f"found in the first {len(first)} image{plural}"
            self.origin = found if first else "no image"
        self.channels = {
            str(block): sorted(
                {c for cell in cells[block] for c in cell.massive_channels(block) or ()}
            )
            for block in self.blocks
        }

    def made(self) -> dict[str, Any]:
        """Return the settings that are stored with every map, once the channels are settled."""
        from kornia_ditf.cli import settings
        from kornia_ditf.utils import provenance

        made = {
            **settings.as_values(self.chosen, self.spec, self.descriptor),
            "descriptor_blocks": self.blocks,
            "massive_channels": self.channels,
            "massive_channels_from": self.origin,
            "stored_as": self.store,
            "versions": provenance.versions(output.LIBRARIES),
        }
        made.pop("block", None)
        del made["embedded_default"]
        return made

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
        maps = descriptor.describe_prepared(images, [self.told] * len(images))
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
        return encode(tensors, self.store, of=f"the descriptors of {label}"), first.about()


def differing(found: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """Name the settings in which stored descriptors differ from those that would be made."""
    return [name for name in SETTINGS if found.get(name) != made.get(name)]
