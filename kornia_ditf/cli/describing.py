"""What `kornia-ditf extract` describes images with, in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kornia_ditf.cli import options, output
from kornia_ditf.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
    from kornia_ditf.types import DescriptorMap
    from kornia_ditf.types.prepared import PreparedImage

_CALIBRATION_IMAGES = 4
# Files that agree in these were made with the same settings.
SETTINGS = (
    *("name", "identity", "descriptor_blocks", "timestep", "treatment", "long_side", "options"),
    *("settings", "ensemble", "prompt", "seed", "dtype", "massive_channels", "stored_as"),
)

Encoded = bytes | ImageError | None
"""The content of an image's file, or why it cannot be read; None where the file is to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to describe images with, as the command's options say it.

    Args:
        backbone: the option --backbone.
        source: the option --source.
        others: the option --option.
        preset: the option --preset.
        blocks: which to describe; the preset's where there are none.
        given: options of `create_descriptor`; those that are None were not given.
        store: the format of stored descriptors; see `encode`.
        batch: how many images of one size to describe together; None for what suits the device.
    """

    backbone: str | None
    source: str | None
    others: Sequence[str] | None
    preset: str | None
    blocks: Sequence[int]
    given: Mapping[str, Any]
    store: str
    batch: int | None

    def find_spec(self) -> BackboneSpec | DescriptorSpec:
        """Find what --backbone names; raises as `options.find_spec`."""
        return options.find_spec(self.backbone, self.others, self.source, self.preset)

    def load(self, spec: BackboneSpec | DescriptorSpec) -> Describer:
        """Load the descriptor; raises as `options.load_descriptor`."""
        from kornia_ditf.cli import settings
        from kornia_ditf.descriptor import DiTF

        descriptor = options.load_descriptor(spec, self.source, self.given)
        blocks = list(self.blocks)
        if isinstance(descriptor, DiTF):
            blocks = blocks or [descriptor.config.block]
        prompt = self.given["prompt"]
        return Describer(
            spec=spec,
            descriptor=descriptor,
            blocks=blocks,
            told=settings.told(descriptor, [prompt] if prompt else []),
            side=options.side_in_pixels(self.given["long_side"], spec),
            request=self,
        )


@dataclass(slots=True, kw_only=True)
class Describer:
    """A loaded descriptor: prepares images, describes those of one size together, encodes maps."""

    spec: BackboneSpec | DescriptorSpec
    descriptor: DenseDescriptor
    blocks: list[int]
    told: Any
    side: int | None
    request: Request
    channels: dict[str, list[int]] = field(default_factory=dict)
    origin: str = ""

    def find_channels(self, images: Iterable[tuple[str, Encoded]]) -> None:
        """Settle which channels every image does without, by block.

        Args:
            images: what messages call each, and its content; channels that are not known are
                found in the first four that can be read.
        """
        from kornia_ditf.cli.settings import known_channels
        from kornia_ditf.descriptor import DiTF

        self.origin = known_channels(self.descriptor)[1]
        if not isinstance(self.descriptor, DiTF) or not self.descriptor.config.steps.discards:
            return
        missing = [b for b in self.blocks if self.descriptor.massive_channels(b) is None]
        if missing:
            found: list[Tensor] = []
            for label, content in images:
                try:
                    found.append(self._decode(label, content))
                except ImageError:
                    continue  # it is reported when its turn comes
                if len(found) == _CALIBRATION_IMAGES:
                    break
            for block in missing if found else ():
                self.descriptor.calibrate(found, block=block, keep=False)
            plural = "s" if len(found) > 1 else ""
            first = f"found in the first {len(found)} image{plural}"
            self.origin = first if found else "no image"
        self.channels = {
            str(block): list(self.descriptor.massive_channels(block) or ()) for block in self.blocks
        }

    def made(self) -> dict[str, Any]:
        """Return the settings that are stored with every map, once the channels are settled."""
        from kornia_ditf.cli import settings
        from kornia_ditf.utils import provenance

        request = self.request
        made = {
            **settings.as_values(request.backbone, self.spec, self.descriptor, request.given),
            "descriptor_blocks": self.blocks,
            "massive_channels": self.channels,
            "massive_channels_from": self.origin,
            "stored_as": request.store,
            "versions": provenance.versions(output.LIBRARIES),
        }
        made.pop("block", None)
        del made["embedded_default"]
        return made

    def prepare(self, label: str, content: Encoded) -> PreparedImage:
        """Decode an image and fit it to the model.

        Raises:
            ImageError: it cannot be read or used.
        """
        import torch

        with torch.no_grad():
            return self.descriptor.prepare(self._decode(label, content))

    def _decode(self, label: str, content: Encoded) -> Tensor:
        from kornia_ditf.cli.images import read_fitting

        if isinstance(content, ImageError):
            raise content
        return read_fitting(label, self.side, self.spec.pixels_per_token, content)

    def group(self, image: PreparedImage) -> tuple[Any, int]:
        """Return what images that are described together have in common, and how many those are."""
        return image.pixels.shape, self.descriptor.batch_of(image, self.request.batch)

    def describe(self, images: Sequence[PreparedImage]) -> list[dict[str, DescriptorMap]]:
        """Describe images of one size, and name what is stored of each."""
        from kornia_ditf.descriptor import DiTF

        if isinstance(self.descriptor, DiTF):
            name = "descriptors" if len(self.blocks) == 1 else "block_{}"
            by_block = self.descriptor.describe_prepared_blocks(images, self.blocks)
            return [{name.format(b): maps[b] for b in self.blocks} for maps in by_block]
        described = self.descriptor.describe_prepared(images, [self.told] * len(images))
        return [{"descriptors": one} for one in described]

    def encode(
        self, label: str, maps: Mapping[str, DescriptorMap]
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
        stored = encode(tensors, self.request.store, of=f"the descriptors of {label}")
        return stored, first.about()


def differing(found: Mapping[str, Any], made: Mapping[str, Any]) -> list[str]:
    """Name the settings in which stored descriptors differ from those that would be made."""
    return [name for name in SETTINGS if found.get(name) != made.get(name)]
