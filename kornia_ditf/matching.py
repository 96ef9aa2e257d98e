"""Descriptors of two images in, correspondences in the pixels of each out, by cosine.

Everything is computed in float32 without gradients, in pieces: neither all pairs of tokens nor
descriptors at full resolution are ever held.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kornia_ditf.comparing import check_comparable, check_one_image, check_tensor, full_precision
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.transfer import match_points, similarity_maps
from kornia_ditf.types import DescriptorMap, Matches

__all__ = ["match", "match_points", "mutual_nearest", "similarity_maps"]

_TILE_A = 512
_TILE_B = 1024


def mutual_nearest(descriptors_a: Tensor, descriptors_b: Tensor) -> tuple[Tensor, Tensor]:
    """Find the pairs that are each other's nearest by cosine.

    The same pairs as from the argmax of the whole matrix of cosines along both axes, which is
    never held. Where several are equally near, the first is nearest. Zero vectors have no
    direction and are left out.

    Args:
        descriptors_a: shape (N, D), of any length each; N may be 0.
        descriptors_b: shape (M, D); M may be 0.

    Returns:
        pairs of row numbers (a, b), int64, shape (K, 2), in ascending order of a; and their
        cosines, float32, shape (K,).

    Raises:
        InvalidArgumentError: a wrong shape, different widths or devices, or values not finite.

    Example:
        >>> indices, scores = mutual_nearest(torch.eye(3), 5 * torch.eye(3)[[2, 0]])
        >>> indices
        tensor([[0, 1],
                [2, 0]])
        >>> scores
        tensor([1., 1.])
    """
    check_tensor(descriptors_a, "descriptors_a", "(N, D)")
    check_tensor(descriptors_b, "descriptors_b", "(M, D)")
    check_comparable(descriptors_a, descriptors_b, descriptors_a.shape[1], descriptors_b.shape[1])
    with full_precision(descriptors_a.device):
        side_a = _Side(descriptors_a, "descriptors_a")
        side_b = _Side(descriptors_b, "descriptors_b")
        for part_b, tile_b in side_b.tiles(_TILE_B):
            for part_a, tile_a in side_a.tiles(_TILE_A):
                cosines = tile_a @ tile_b.T
                side_a.update(part_a, part_b, cosines)
                side_b.update(part_b, part_a, cosines.T)
        a = torch.arange(len(side_a.rows), device=descriptors_a.device)
        if not len(side_b.rows):
            a = a[:0]
        b = side_a.nearest[a]
        mutual = side_b.nearest[b] == a
        indices = torch.stack([side_a.rows[a[mutual]], side_b.rows[b[mutual]]], 1)
        return indices, side_a.cosines[a[mutual]].clamp(-1, 1)


class _Side:
    """One image's descriptors, shape (N, D), and what is nearest to each so far."""

    def __init__(self, descriptors: Tensor, name: str) -> None:
        # In float64 no square overflows or vanishes; in pieces, for that is a copy.
        pieces = torch.split(descriptors, _TILE_A)
        lengths = torch.cat([torch.linalg.vector_norm(piece.double(), dim=1) for piece in pieces])
        if not bool((lengths <= torch.finfo(torch.float32).max).all()):
            raise InvalidArgumentError(f"{name} must be finite, got NaN or infinity among them")
        self.descriptors = descriptors
        self.rows = (lengths > torch.finfo(torch.float32).tiny).nonzero().flatten()
        self.lengths = lengths[self.rows].float()
        self.nearest = torch.zeros_like(self.rows)
        self.cosines = torch.full_like(self.lengths, -torch.inf)

    def tiles(self, count: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield so many descriptors at a time, of unit length, without the zero vectors."""
        for start in range(0, len(self.rows), count):
            part = slice(start, start + count)
            yield part, self.descriptors[self.rows[part]].float() / self.lengths[part, None]

    def update(self, part: slice, others: slice, cosines: Tensor) -> None:
        """Note the nearest of some more of the others, which come in ascending order."""
        best, nearest = cosines.max(1)
        # Greater, not equal: of equals the first stays.
        better = best > self.cosines[part]
        self.cosines[part] = torch.where(better, best, self.cosines[part])
        self.nearest[part] = torch.where(better, nearest + others.start, self.nearest[part])


def match(map_a: DescriptorMap, map_b: DescriptorMap, *, min_score: float | None = None) -> Matches:
    """Match the mutually nearest tokens of two images.

    Args:
        map_a: one image's descriptors.
        map_b: the other's; grids and image sizes may differ.
        min_score: leave out matches of a lower cosine, in [-1, 1].

    Returns:
        the tokens' centres in the pixels of the two images, best first.

    Raises:
        InvalidArgumentError: a map of several images, different widths or devices, values not
            finite, or min_score out of range.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> a = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), Frame((32, 32), (32, 32)))
        >>> b = DescriptorMap(a.data.flip(3), Frame((64, 64), (64, 64)))
        >>> match(a, b).points_b
        tensor([[47.5000, 15.5000],
                [15.5000, 15.5000],
                [47.5000, 47.5000],
                [15.5000, 47.5000]])
    """
    for name, descriptors in (("map_a", map_a), ("map_b", map_b)):
        check_one_image(descriptors, name)
    if min_score is not None and not -1 <= min_score <= 1:
        raise InvalidArgumentError(f"min_score must lie in [-1, 1], got {min_score}")
    indices, scores = mutual_nearest(map_a.tokens[0], map_b.tokens[0])
    if min_score is not None:
        indices, scores = indices[scores >= min_score], scores[scores >= min_score]
    a, b = indices.unbind(1)
    return Matches(map_a.centres()[a], map_b.centres()[b], scores).best(len(scores))
