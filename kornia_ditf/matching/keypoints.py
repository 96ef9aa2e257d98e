"""Keypoint transfer: points of one image found again in another, at its full resolution.

A point's descriptor is compared with every pixel of the other image (`similarity` says how that is
cheap), and a decoder reads its position from the cosines. A target can be prepared once for any
number of searches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_comparable, full_precision
from kornia_ditf.matching.similarity import (
    cosine_planes,
    inverse_lengths,
    mean_places,
    near_places,
)
from kornia_ditf.types import DescriptorMap, Frame, Matches
from kornia_ditf.utils.checks import check_finite, check_integer, check_number, check_one_of
from kornia_ditf.utils.precision import widen


@dataclass(frozen=True, slots=True)
class Argmax:
    """Decode the pixel of highest cosine, as DIFT and DiTF do; ties go to the first, row by row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """Decode several pixels of highest cosine, best first.

    Args:
        count: how many, at least 1.
        apart: suppress pixels within this distance of a better one, along x and y both. At 0
            the pixels found are mostly neighbours.

    Raises:
        InvalidArgumentError: a number out of range.
    """

    count: int = 5
    apart: int = 0

    def __post_init__(self) -> None:
        check_integer("count", self.count, 1)
        check_integer("apart", self.apart, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSoftArgmax:
    """Decode the softmax-weighted mean position around the highest cosine, as GeoAware-SC does.

    As in the code of Zhang et al., "Telling Left from Right" (CVPR 2024): cosines outside a
    square window around the highest become 0, and the softmax is taken over all of them. There a
    point's descriptor is that of the token it falls into: for exactly that, ask for points at
    token centres (`DescriptorMap.centres`).

    Args:
        beta: the temperature, above 0; theirs is 0.02.
        radius: how far the window reaches from its centre, in cells of `grid`, at least 0;
            theirs is 7 for trained and 5 for zero-shot descriptors.
        grid: `tokens`, as theirs, or `pixels` of the image.

    Raises:
        InvalidArgumentError: a number out of range, or no such grid.
    """

    beta: float = 0.02
    radius: int = 7
    grid: Literal["tokens", "pixels"] = "tokens"

    def __post_init__(self) -> None:
        check_number("beta", self.beta, "(0, inf]")
        check_integer("radius", self.radius, 0)
        check_one_of("grid", self.grid, ("tokens", "pixels"))


Decoder = Argmax | TopK | WindowSoftArgmax


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Descriptors prepared for any number of searches; see `prepare_target`.

    Args:
        tokens: descriptors token by token, shape (B, rows, columns, D), float32.
        inverses: one over the length of every upsampled descriptor, shape (B, H, W), float32, or of
            every token, shape (B, rows, columns), where these are searched.
        pixels: which of the two.
        frame: how the images' pixels map onto the model's.
    """

    tokens: Tensor
    inverses: Tensor
    frame: Frame
    pixels: bool = True

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        return self.tokens.shape[1], self.tokens.shape[2]

    @property
    def descriptors(self) -> DescriptorMap:
        """The descriptors as a map, without a copy."""
        return DescriptorMap(self.tokens.permute(0, 3, 1, 2), self.frame)


def prepare_target(descriptors: DescriptorMap, *, pixels: bool = True) -> Target:
    """Prepare the descriptors of image B for many searches, each of which is then much faster.

    Args:
        descriptors: of B images.
        pixels: whether pixels are searched; False for a `WindowSoftArgmax` of tokens, which needs
            no lengths of upsampled descriptors.

    Raises:
        InvalidArgumentError: values not finite.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> a = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), Frame((32, 32), (32, 32)))
        >>> target = prepare_target(a)
        >>> [match_points(a, torch.tensor([[x, 4.0]]), target).points_b for x in (4.0, 31.0)]
        [tensor([[0., 0.]]), tensor([[24.,  0.]])]
    """
    return _prepare(descriptors, "descriptors", pixels=pixels)


@overload
def match_points(
    map_a: DescriptorMap | Target,
    points: Tensor,
    map_b: DescriptorMap | Target,
    *,
    decode: Decoder = ...,
) -> Matches: ...
@overload
def match_points(
    map_a: DescriptorMap | Target | Sequence[DescriptorMap | Target],
    points: Tensor | Sequence[Tensor],
    map_b: DescriptorMap | Target | Sequence[DescriptorMap | Target],
    *,
    decode: Decoder = ...,
) -> Matches | list[Matches]: ...
def match_points(
    map_a: DescriptorMap | Target | Sequence[DescriptorMap | Target],
    points: Tensor | Sequence[Tensor],
    map_b: DescriptorMap | Target | Sequence[DescriptorMap | Target],
    *,
    decode: Decoder = Argmax(),
) -> Matches | list[Matches]:
    """Find each point of image A in image B, among all pixels of B.

    The same as upsampling B's descriptors to its image's size (bilinear), normalising them and
    taking the pixel of highest cosine, as DIFT and DiTF do; see `similarity` for how. Among equal
    pixels the first is taken, row by row; a point whose descriptor is zero goes to (0, 0) with
    score 0.

    Args:
        map_a: descriptors of B images, or what `prepare_target` made of them, whose values are not
            checked again; or a list of either.
        points: (x, y) in pixels of A, shape (B, K, 2), or (1, K, 2) for all images, or (K, 2)
            where the maps hold one image; K may be 0. For lists of maps, one tensor for all or a
            list of them.
        map_b: descriptors of the B images to search, or what `prepare_target` made of them; or a
            list of either.
        decode: how a position is read from the cosines: `Argmax`, `TopK` or `WindowSoftArgmax`.

    Returns:
        the points and their pixels in B, shape (B, K, 2), float32, and the highest cosines, shape
        (B, K); for points of shape (K, 2) all without the first axis. They keep the order of
        `points`. `TopK` adds an axis of its count after K; where it runs out of pixels, scores
        are -inf. For lists a list with one result per pair; a single map on one side goes with
        every map on the other.

    Raises:
        InvalidArgumentError: a wrong shape, maps of different lengths, widths or devices, or
            values that are not finite.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> a = DescriptorMap(torch.eye(4).view(1, 4, 2, 2), Frame((32, 32), (32, 32)))
        >>> b = DescriptorMap(a.data.flip(3), Frame((64, 64), (64, 64)))
        >>> match_points(a, torch.tensor([[4.0, 4.0]]), b).points_b
        tensor([[48.,  0.]])
        >>> match_points(a, torch.tensor([[4.0, 4.0]]), b, decode=WindowSoftArgmax()).points_b
        tensor([[47.5000, 15.5000]])
    """
    if isinstance(map_a, DescriptorMap | Target) and isinstance(map_b, DescriptorMap | Target):
        return _match_points(map_a, points, map_b, decode)
    lists = [side for side in (map_a, points, map_b) if isinstance(side, list | tuple)]
    lengths = {len(side) for side in lists}
    if len(lengths) != 1:
        raise InvalidArgumentError(
            f"lists of maps and points must have the same length, got {sorted(lengths)}"
        )
    maps_a, every, maps_b = (
        side if isinstance(side, list | tuple) else [side] * len(lists[0])
        for side in (map_a, points, map_b)
    )
    return [_match_points(*each, decode) for each in zip(maps_a, every, maps_b, strict=True)]


def _match_points(
    map_a: DescriptorMap | Target, points: Any, map_b: DescriptorMap | Target, decode: Decoder
) -> Matches:
    if not isinstance(decode, Argmax | TopK | WindowSoftArgmax):
        raise InvalidArgumentError(
            f"decode must be Argmax(), TopK() or WindowSoftArgmax(), of kornia_ditf, got {decode!r}"
        )
    of_tokens = isinstance(decode, WindowSoftArgmax) and decode.grid == "tokens"
    target, queries = _read(map_a, points, map_b, pixels=not of_tokens)
    with full_precision(queries.device):
        pieces = [_decode(planes, decode) for planes in _cosines(queries, target)]
    places, scores = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    if of_tokens:
        places = Frame(target.frame.image_size, target.grid).to_image(places)
    places = places.view(*queries.shape[:2], *places.shape[1:])
    given = points.to(places) if points.ndim == 3 else points.to(places)[None]
    given = (given if places.ndim == 3 else given.unsqueeze(2)).expand_as(places)
    matches = Matches(given, places, scores.view(places.shape[:-1]))
    if points.ndim == 3:
        return matches
    return Matches(matches.points_a[0], matches.points_b[0], matches.scores[0])


def similarity_maps(map_a: DescriptorMap, points: Tensor, map_b: DescriptorMap | Target) -> Tensor:
    """Compute the cosine of points of image A with every pixel of image B.

    Args:
        map_a: descriptors of B images.
        points: (x, y) in the pixels of A, shape (B, K, 2), or (1, K, 2) for all images, or
            (K, 2) where the maps hold one image.
        map_b: descriptors of the B images to compare with, or what `prepare_target` made of them.

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
    target, queries = _read(map_a, points, map_b)
    maps = queries.new_empty(*queries.shape[:2], *target.frame.image_size)
    with full_precision(queries.device):
        done, flat = 0, maps.flatten(0, 1)
        for planes in _cosines(queries, target):
            flat[done : done + len(planes)] = planes
            done += len(planes)
    return maps if points.ndim == 3 else maps[0]


def _decode(planes: Tensor, decode: Decoder) -> tuple[Tensor, Tensor]:
    """Read places (x, y) and scores of some points from their cosines, shape (K, H, W)."""
    if isinstance(decode, WindowSoftArgmax):
        return _mean_places(planes, decode)
    if isinstance(decode, TopK):
        return _peaks(planes, decode)
    places, scores = _peaks(planes, TopK(count=1))
    return places[:, 0], scores[:, 0]


def _peaks(planes: Tensor, decode: TopK) -> tuple[Tensor, Tensor]:
    """Take the best pixels (x, y), shape (K, count, 2), of planes (K, H, W); writes into them."""
    height, width = planes.shape[1:]
    places: list[Tensor] = []
    scores: list[Tensor] = []
    for rank in range(decode.count):
        if rank:
            near = near_places(places[-1], (height, width), decode.apart)
            planes.masked_fill_(near, -torch.inf)
        score, best = planes.flatten(1).max(1)
        places.append(torch.stack([best % width, best // width], 1))
        # The few roundings above 1, and not the -inf of what ran out.
        scores.append(score.where(score.isinf(), score.clamp(-1, 1)))
    return torch.stack(places, 1).float(), torch.stack(scores, 1)


def _mean_places(maps: Tensor, decode: WindowSoftArgmax) -> tuple[Tensor, Tensor]:
    """Read mean places (x, y), shape (K, 2), and peaks, shape (K,), from maps (K, R, C)."""
    rows, columns = maps.shape[1:]
    peaks, best = maps.flatten(1).max(1)
    peak = torch.stack([best % columns, best // columns], 1)
    windowed = torch.where(near_places(peak, (rows, columns), decode.radius), maps, 0)
    weights = (windowed.flatten(1) / decode.beta).softmax(1).view_as(maps)
    return mean_places(weights), peaks.clamp(-1, 1)


def _cosines(queries: Tensor, target: Target) -> Iterator[Tensor]:
    """Yield cosines of some queries with each pixel or token, image by image, shape (K, H, W)."""
    for some, tokens, inverses in zip(queries, target.tokens, target.inverses, strict=True):
        if target.pixels:
            yield from cosine_planes(some, tokens, target.frame.image_size, inverses)
        else:
            yield (some @ tokens.flatten(0, 1).T).view(-1, *inverses.shape) * inverses


def _prepare(descriptors: DescriptorMap, name: str, *, pixels: bool) -> Target:
    rows, columns = descriptors.grid
    with full_precision(descriptors.data.device):
        check_finite(descriptors.data, name)
        tokens = descriptors.tokens.float().contiguous().view(len(descriptors), rows, columns, -1)
        size = descriptors.frame.image_size
        if pixels:
            inverses = torch.stack([inverse_lengths(image, size) for image in tokens])
        else:
            lengths = torch.linalg.vector_norm(tokens, dim=-1, dtype=widen(tokens[:0]).dtype)
            inverses = torch.where(lengths > 0, 1 / lengths, 0).float()
    return Target(tokens, inverses, descriptors.frame, pixels)


def _read(
    map_a: DescriptorMap | Target,
    points: Tensor,
    map_b: DescriptorMap | Target,
    *,
    pixels: bool = True,
) -> tuple[Target, Tensor]:
    """Check everything; read the points, shape (B, K, D)."""
    a, b = (each.descriptors if isinstance(each, Target) else each for each in (map_a, map_b))
    check_comparable(a.data, b.data)
    if len(a) != len(b):
        raise InvalidArgumentError(
            f"the maps must hold the same number of images, got {len(a)} and {len(b)}"
        )
    with full_precision(a.data.device):
        if not isinstance(map_a, Target):
            check_finite(a.data, "map_a")
        target = map_b
        if not isinstance(target, Target) or target.pixels != pixels:
            target = _prepare(b, "map_b", pixels=pixels)
        alone = isinstance(points, Tensor) and points.ndim == 2 and len(a) == 1
        return target, a.at(points[None] if alone else points)
