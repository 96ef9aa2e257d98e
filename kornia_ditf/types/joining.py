"""Joining the channels of descriptor maps, and averaging maps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.types.descriptors import DescriptorMap, Discarded


def fuse(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Divide parts by their length at every token (zeros stay), weigh them and join the channels.

    Args:
        parts: descriptors, each of shape (B, D_i, rows, columns).
        weights: one number per part.

    Returns:
        fused descriptors, shape (B, sum of D_i, rows, columns), float32.

    Example:
        >>> parts = [torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])]
        >>> fuse([part.view(1, 2, 1, 1) for part in parts], [1.0, 0.5]).flatten()
        tensor([0.6000, 0.8000, 0.0000, 0.5000])
    """
    tiny = torch.finfo(torch.float32).tiny
    units = [F.normalize(part.float(), dim=1, eps=tiny) for part in parts]
    return torch.cat([w * unit for w, unit in zip(weights, units, strict=True)], dim=1)


def join_maps(
    maps: Sequence[DescriptorMap], weights: Sequence[float] | None = None
) -> DescriptorMap:
    """Scale each map's descriptors to unit length, weigh them, and join their channels.

    Args:
        maps: of the same images on one grid; the first one's frame is kept.
        weights: one number per map; None weighs all alike.
    """
    data = fuse([each.data for each in maps], weights or [1.0] * len(maps))
    parts = chain.from_iterable(each.parts or (each.data.shape[1],) for each in maps)
    offsets = accumulate((each.data.shape[1] for each in maps), initial=0)
    discarded = _merge_discarded(maps, list(offsets))
    return DescriptorMap(data, maps[0].frame, discarded, parts=tuple(parts))


def mean_maps(maps: Sequence[DescriptorMap]) -> DescriptorMap:
    """Average maps of the same images on one grid."""
    if len(maps) == 1:
        return maps[0]
    data = torch.stack([each.data.float() for each in maps]).mean(0)
    discarded = _merge_discarded(maps, [0] * len(maps))
    return DescriptorMap(data, maps[0].frame, discarded, parts=maps[0].parts)


def _merge_discarded(
    maps: Sequence[DescriptorMap], offsets: Sequence[int]
) -> tuple[Discarded, ...]:
    """Merge what was discarded from each image; a map's channels begin at its offset."""
    known = [(each, offset) for each, offset in zip(maps, offsets, strict=False) if each.discarded]
    merged = []
    for image in range(len(maps[0]) if known else 0):
        found = [(each.discarded[image], offset) for each, offset in known]
        channels = sorted({offset + channel for one, offset in found for channel in one.channels})
        merged.append(Discarded(channels, "; ".join(dict.fromkeys(one.source for one, _ in found))))
    return tuple(merged)
