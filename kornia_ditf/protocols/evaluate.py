"""Descriptors of two images and what is known of the pair in, a scored `PairResult` out."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching import match_points
from kornia_ditf.metrics.functional import point_distances, within
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.types import DescriptorMap, Frame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairResult:
    """What came out for one pair, point by point.

    Args:
        name: of the pair.
        category: what it counts under.
        points: which points of the pair these are, shape (K,), int64: those seen in both images.
        predicted: where they were found, (x, y) in the pixels of image B, shape (K, 2).
        distances: to where they belong, shape (K,), in the pixels that the protocol measures in.
        base: what thresholds are relative to, in the same pixels.
        alphas: the thresholds as parts of the base.
        hits: which are correct at each threshold, shape (A, K), bool.
        corner_error: where a homography is fitted, the mean distance of the image's corners under
            it from where they belong, in pixels of B; infinite where none could be fitted.
        seconds: what finding and scoring took.
    """

    name: str
    category: str
    points: Tensor
    predicted: Tensor
    distances: Tensor
    base: float
    alphas: tuple[float, ...]
    hits: Tensor
    corner_error: float | None = None
    seconds: float = 0.0


def evaluate_pair(
    map_a: DescriptorMap, map_b: DescriptorMap, pair: Pair, protocol: Protocol
) -> PairResult:
    """Find a pair's points in its second image and score them as a protocol does.

    Args:
        map_a: descriptors of image A, fitted by `prepare_image` with this protocol.
        map_b: descriptors of image B, likewise.
        pair: what is known of the two images.
        protocol: how to find and score.

    Raises:
        InvalidArgumentError: the maps are not of images fitted for this protocol, or the pair
            lacks what the protocol needs, such as a box.

    Example:
        >>> from kornia_ditf.datasets import folder
        >>> from kornia_ditf.protocols.presets import find_protocol
        >>> pair = folder.load("examples/data")[0]
        >>> described = DescriptorMap(torch.rand(1, 8, 32, 40), Frame(pair.size_a, pair.size_a))
        >>> result = evaluate_pair(described, described, pair, find_protocol("ditf-spair"))
        >>> result.hits.shape, result.base
        (torch.Size([3, 60]), 475.0)
    """
    begin = time.perf_counter()
    if protocol.task != "keypoints":
        raise InvalidArgumentError(f"{protocol.name} scores {protocol.task}, not pairs of points")
    index = pair.visible.nonzero()[:, 0]
    predicted, distances = _by_pixels(map_a, map_b, pair, index)
    base = _base(pair, protocol)
    return PairResult(
        name=pair.name,
        category=pair.category,
        points=index,
        predicted=predicted,
        distances=distances,
        base=base,
        alphas=protocol.alphas,
        hits=within(distances, base, protocol.alphas, protocol.comparison),
        seconds=time.perf_counter() - begin,
    )


def _by_pixels(
    map_a: DescriptorMap, map_b: DescriptorMap, pair: Pair, index: Tensor
) -> tuple[Tensor, Tensor]:
    map_a, map_b = _framed(map_a, pair.size_a), _framed(map_b, pair.size_b)
    found = match_points(map_a, pair.points_a[index], map_b).points_b.double().cpu()
    return found, point_distances(found, pair.points_b[index])


def _framed(described: DescriptorMap, size: tuple[int, int]) -> DescriptorMap:
    # The fitted picture covers the same area as the image, so its grid does as well.
    return DescriptorMap(described.data, Frame(size, described.frame.model_size))


def _base(pair: Pair, protocol: Protocol) -> float:
    if protocol.base == "pixels":
        return 1.0
    if protocol.base == "image":
        return float(max(pair.size_b))
    if pair.box_b is None:
        raise InvalidArgumentError(
            f"pair {pair.name} has no box in image B, by which {protocol.name} sets its "
            "thresholds: add one, or use a protocol with base='image'"
        )
    left, top, right, bottom = pair.box_b
    return max(bottom - top, right - left)
