"""Inspection of a backbone's channels at every block, and of what the treatments make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.massive import ChannelRecorder, ChannelStatistics, channels_of_gates
from kornia_ditf.matching.similarity import token_cosines
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.types import DescriptorMap

COMPARED: tuple[str, ...] = ("raw", "adaln", "adaln+discard")
"""The treatments that are shown side by side, besides the configured one."""


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """Channels of a backbone, measured on a few images.

    Args:
        statistics: of the channels at each block, over all images and tokens.
        block: the block that the treatments were compared at.
        discarded: the channels that `adaln+discard` zeroes there.
        gates: the channels that the residual gates of the blocks before it point at, without an
            image; None where those blocks show no gates.
        point: (x, y) in the pixels of the first image.
        similarity: by treatment, the cosine of each token of the first image with the descriptor
            at the point, shape (rows, columns).
        contrast: by treatment, 1 minus the mean cosine between different tokens of the first
            image; 0 where all tokens are alike.
    """

    statistics: Mapping[int, ChannelStatistics]
    block: int
    discarded: tuple[int, ...]
    gates: tuple[int, ...] | None
    point: tuple[float, float]
    similarity: Mapping[str, Tensor]
    contrast: Mapping[str, float]


def inspect_channels(
    ditf: DiTF,
    images: Sequence[ImageLike],
    *,
    blocks: Sequence[int] | None = None,
    point: tuple[float, float] | None = None,
) -> Inspection:
    """Measure the channels of several blocks, and compare treatments at the configured one.

    Each image takes one forward, whose blocks are held until the next.

    Args:
        ditf: loaded as far as the last of the blocks.
        images: any that `DiTF` takes, one each.
        blocks: which blocks; None is all that the backbone has. The configured one is added.
        point: (x, y) in pixels of the first image; None is its centre.

    Raises:
        InvalidArgumentError: no images, or a point outside the first image.
        ImageError: a file cannot be read, or an image is too small or too thin.
    """
    if not images:
        raise InvalidArgumentError("name at least one image to inspect")
    first = as_image(images[0])[:1]
    place = _place(point, first)
    asked = range(ditf.backbone.blocks) if blocks is None else blocks
    numbers = sorted({*asked, ditf.config.block})
    plain = DiTF(ditf.backbone, replace(ditf.config, gradients=False))
    recorders = {block: ChannelRecorder() for block in numbers}
    for image in (*images[1:], first):  # the first comes last, for its tap is used below
        taps, frame = plain.taps(image, numbers)
        for block, tap in taps.items():
            recorders[block].update(tap.x)
    statistics = {block: recorder.compute() for block, recorder in recorders.items()}
    known = ditf.massive_channels()
    discarded = statistics[ditf.config.block].massive() if known is None else known
    tap = taps[ditf.config.block]
    compared = COMPARED if ditf.config.facet == "input" else ("raw", "discard")
    treated = {
        name: DiTF(
            ditf.backbone, replace(plain.config, treatment=name, massive_channels=discarded)
        ).finish(ditf.config.block, tap, frame)
        for name in dict.fromkeys((*compared, str(ditf.config.treatment)))
    }
    gates = None
    if ditf.config.facet == "input" and type(ditf.backbone).gates is not Backbone.gates:
        found = plain.gates()
        gates = channels_of_gates(found) if len(found) else None
    return Inspection(
        statistics,
        ditf.config.block,
        discarded,
        gates,
        place,
        {name: token_cosines(each, place, each) for name, each in treated.items()},
        {name: _contrast(descriptors) for name, descriptors in treated.items()},
    )


def _place(point: tuple[float, float] | None, image: Tensor) -> tuple[float, float]:
    height, width = image.shape[-2:]
    if point is None:
        return (width - 1) / 2, (height - 1) / 2
    x, y = point
    if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
        raise InvalidArgumentError(
            f"the point must lie in the first image, x in [0, {width - 1}] and y in "
            f"[0, {height - 1}], got ({x:g}, {y:g})"
        )
    return point


def _contrast(descriptors: DescriptorMap) -> float:
    tokens = F.normalize(descriptors.tokens[0].cpu().double(), dim=-1)
    count = len(tokens)
    # The sum of all cosines is the squared length of the sum of all tokens.
    pairs = float(tokens.sum(0).square().sum()) - count
    return 1 - pairs / max(count * (count - 1), 1)
