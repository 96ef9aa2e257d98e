"""Descriptors of two images in, correspondences in the pixels of each out, by cosine.

Everything is computed in float32 without gradients, in pieces: neither all pairs of tokens nor
descriptors at full resolution are ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.fullres import cosine_planes
from kornia_ditf.types import DescriptorMap, Matches

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
    _check_tensor(descriptors_a, "descriptors_a", "(N, D)")
    _check_tensor(descriptors_b, "descriptors_b", "(M, D)")
    _check_pair(descriptors_a, descriptors_b, descriptors_a.shape[1], descriptors_b.shape[1])
    with _full_precision(descriptors_a.device):
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
        if len(descriptors) != 1:
            raise InvalidArgumentError(
                f"{name} holds {len(descriptors)} images where one is matched: "
                f"choose one by its number, as in {name}[0]"
            )
    if min_score is not None and not -1 <= min_score <= 1:
        raise InvalidArgumentError(f"min_score must lie in [-1, 1], got {min_score}")
    indices, scores = mutual_nearest(map_a.tokens[0], map_b.tokens[0])
    if min_score is not None:
        indices, scores = indices[scores >= min_score], scores[scores >= min_score]
    a, b = indices.unbind(1)
    return Matches(map_a.centres()[a], map_b.centres()[b], scores).best(len(scores))


def match_points(map_a: DescriptorMap, points: Tensor, map_b: DescriptorMap) -> Matches:
    """Find each point of image A in image B, among all pixels of B.

    The same as upsampling B's descriptors to its image's size (bilinear), normalising them and
    taking the pixel of highest cosine, as DIFT and DiTF do; see `fullres` for how. Among equal
    pixels the first is taken, row by row; a point whose descriptor is zero goes to (0, 0) with
    score 0.

    Args:
        map_a: descriptors of B images.
        points: (x, y) in the pixels of A, whole or not, shape (B, K, 2), or (1, K, 2) for all
            images, or (K, 2) where the maps hold one image; K may be 0.
        map_b: descriptors of the B images to search.

    Returns:
        the points and their pixels in B, shape (B, K, 2), float32, and cosines, shape (B, K);
        for points of shape (K, 2) all without the first axis. They keep the order of `points`.

    Raises:
        InvalidArgumentError: a wrong shape, maps of different lengths, widths or devices, or
            values not finite.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> a = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), Frame((32, 32), (32, 32)))
        >>> b = DescriptorMap(a.data.flip(3), Frame((64, 64), (64, 64)))
        >>> match_points(a, torch.tensor([[4.0, 4.0]]), b).points_b
        tensor([[48.,  0.]])
    """
    with _full_precision(map_b.data.device):
        queries = _read_queries(map_a, points, map_b)
        pixels = torch.empty(queries.shape[:-1], dtype=torch.int64, device=queries.device)
        scores = torch.empty(queries.shape[:-1], device=queries.device)
        for index, plane in enumerate(_planes(queries, map_b)):
            pixels.view(-1)[index] = plane.argmax()
            scores.view(-1)[index] = plane.max()
        width = map_b.frame.image_size[1]
        points_b = torch.stack([pixels % width, pixels // width], -1).float()
        points_a = points.to(points_b).expand_as(points_b)
        return Matches(points_a, points_b, scores.clamp_(-1, 1))


def similarity_maps(map_a: DescriptorMap, points: Tensor, map_b: DescriptorMap) -> Tensor:
    """Compare points of image A with every pixel of image B, for pictures.

    Args:
        map_a: descriptors of B images.
        points: (x, y) in the pixels of A, shape (B, K, 2), or (1, K, 2) for all images, or
            (K, 2) where the maps hold one image.
        map_b: descriptors of the B images to compare with.

    Returns:
        cosines, in [-1, 1] up to rounding, float32, shape (B, K, H, W) at the size of image B;
        for points of shape (K, 2) without the first axis.

    Raises:
        InvalidArgumentError: as `match_points` does.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> one = DescriptorMap(torch.randn(1, 8, 2, 3), Frame((21, 32), (32, 48)))
        >>> similarity_maps(one, torch.tensor([[4.0, 4.0]]), one).shape
        torch.Size([1, 21, 32])
    """
    with _full_precision(map_b.data.device):
        queries = _read_queries(map_a, points, map_b)
        size = map_b.frame.image_size
        maps = torch.empty(*queries.shape[:-1], *size, device=queries.device)
        for index, plane in enumerate(_planes(queries, map_b)):
            maps.view(-1, *size)[index] = plane
        return maps


def _planes(queries: Tensor, map_b: DescriptorMap) -> Iterator[Tensor]:
    per_image = queries.view(len(map_b), queries.shape[-2], queries.shape[-1])
    for image, some in zip(map_b, per_image, strict=True):
        tokens = image.tokens[0].float().contiguous().view(*image.grid, -1)
        yield from cosine_planes(some, tokens, image.frame.image_size)


def _read_queries(map_a: DescriptorMap, points: Tensor, map_b: DescriptorMap) -> Tensor:
    """Check everything and read the points, shape (B, K, D) or (K, D) as they are given."""
    _check_pair(map_a.data, map_b.data, map_a.data.shape[1], map_b.data.shape[1])
    if len(map_a) != len(map_b):
        raise InvalidArgumentError(
            f"the maps must hold equally many images, got {len(map_a)} and {len(map_b)}"
        )
    for name, descriptors in (("map_a", map_a), ("map_b", map_b)):
        # NaN spreads to both extremes; this is many times faster than asking every value.
        extremes = torch.stack([*torch.aminmax(descriptors.data)]).float()
        if not bool(torch.isfinite(extremes).all()):
            raise InvalidArgumentError(f"{name} must be finite, got NaN or infinity in it")
    if isinstance(points, Tensor) and points.ndim == 2 and len(map_a) == 1:
        return map_a.at(points[None])[0]
    _check_tensor(points, "points", f"({len(map_a)}, K, 2)")
    return map_a.at(points)


def _check_tensor(value: Tensor, name: str, shape: str) -> None:
    if not isinstance(value, Tensor):
        raise InvalidArgumentError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.ndim != shape.count(",") + 1:
        raise InvalidArgumentError(f"{name} must have the shape {shape}, got {tuple(value.shape)}")


def _check_pair(a: Tensor, b: Tensor, width_a: int, width_b: int) -> None:
    if width_a != width_b:
        raise InvalidArgumentError(
            f"descriptors of one width are compared, got D = {width_a} and {width_b}: "
            "describe both images with one backbone"
        )
    if a.device != b.device:
        raise InvalidArgumentError(
            f"descriptors on one device are compared, got {a.device} and {b.device}"
        )


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield
