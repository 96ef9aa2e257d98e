"""Scoring the descriptors of an annotated pair as a protocol does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_ditf.datasets.files import as_pixels, image_size, is_file
from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.errors import DatasetError, InvalidArgumentError
from kornia_ditf.matching.keypoints import match_points
from kornia_ditf.metrics.functional import corner_error, point_distances, project, within
from kornia_ditf.protocols.canvas import find_in_canvas, from_canvas, scale_of, to_canvas
from kornia_ditf.protocols.planar import fit_homography, match_pair
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.types import DescriptorMap, Frame

_WILLOW_SIDE = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairResult:
    """The result of one pair, point by point.

    Args:
        name: of the pair.
        category: what it counts under.
        points: which points of the pair these are, shape (K,), int64: those seen in both images.
            For a homography, the number of the match.
        sources: where they are in image A, (x, y) in its pixels, shape (K, 2).
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
    sources: Tensor
    predicted: Tensor
    distances: Tensor
    base: float
    alphas: tuple[float, ...]
    hits: Tensor
    corner_error: float | None = None
    seconds: float = 0.0


class _Found(NamedTuple):
    points: Tensor
    sources: Tensor
    predicted: Tensor
    distances: Tensor
    base: float
    corner_error: float | None = None


def evaluate_pair(
    map_a: DescriptorMap, map_b: DescriptorMap, pair: Pair, protocol: Protocol
) -> PairResult:
    """Find a pair's points in its second image and score them as a protocol does.

    Args:
        map_a: descriptors of image A, fitted by `prepare_image` with this protocol.
        map_b: descriptors of image B, likewise.
        pair: what is known of the two images.
        protocol: how to find and score; of the task `keypoints` or `homography`.

    Raises:
        InvalidArgumentError: the maps are not of images fitted for this protocol, or the pair
            lacks what the protocol needs, such as a box.
        DatasetError: an image has another size than is annotated, as the protocol reads it.

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
    for path, size in ((pair.image_a, pair.size_a), (pair.image_b, pair.size_b)):
        check_size(path, size, protocol)
    if protocol.task == "homography":
        found = _planar(map_a, map_b, pair, protocol)
    elif protocol.task == "keypoints":
        finder = _in_canvas if protocol.canvas else _in_image
        found = finder(map_a, map_b, pair, protocol)
    else:
        raise InvalidArgumentError(
            f"{protocol.name} scores {protocol.task} of sequences: use evaluate_sequence"
        )
    return PairResult(
        name=pair.name,
        category=pair.category,
        points=found.points,
        sources=found.sources,
        predicted=found.predicted,
        distances=found.distances,
        base=found.base,
        alphas=protocol.alphas,
        hits=within(
            found.distances,
            found.base,
            protocol.alphas,
            protocol.comparison,
            single=protocol.base == "canvas",
        ),
        corner_error=found.corner_error,
        seconds=time.perf_counter() - begin,
    )


def check_size(path: Path, size: tuple[int, int], protocol: Protocol) -> None:
    """Raise DatasetError if a protocol reads an image at another size than is annotated.

    An EXIF orientation turns an image after it was annotated, or before. An image that is not
    there, since its descriptors came from elsewhere, is not checked.
    """
    if not is_file(path):
        return
    upright = protocol.fit.upright
    found = image_size(path, "", upright=upright)
    if found != size:
        raise DatasetError(
            path,
            f"it has {as_pixels(found)} {'upright' if upright else 'as stored'}, which is how "
            f"{protocol.name} reads it, and its annotation says {as_pixels(size)}; save it without "
            f"an EXIF orientation, or use a protocol with fit.upright={not upright}",
        )


def _in_image(map_a: DescriptorMap, map_b: DescriptorMap, pair: Pair, protocol: Protocol) -> _Found:
    index = pair.visible.nonzero()[:, 0]
    sources, truth = pair.points_a[index], pair.points_b[index]
    framed_a, framed_b = _framed(map_a, pair.size_a), _framed(map_b, pair.size_b)
    predicted = match_points(framed_a, sources, framed_b).points_b.double().cpu()
    scale_a = scale_b = torch.ones(2, dtype=torch.float64)
    if "willow-padding" in protocol.compat:
        scale_a, scale_b = (
            _WILLOW_SIDE / torch.tensor(size[::-1], dtype=torch.float64)
            for size in (pair.size_a, pair.size_b)
        )
    distances = point_distances(predicted * scale_b, truth * scale_b)
    return _Found(index, sources, predicted, distances, _base(pair, protocol, sources * scale_a))


def _in_canvas(
    map_a: DescriptorMap, map_b: DescriptorMap, pair: Pair, protocol: Protocol
) -> _Found:
    index, side = pair.visible.nonzero()[:, 0], protocol.canvas
    points_a = to_canvas(pair.points_a[index], pair.size_a, side)
    points_b = to_canvas(pair.points_b[index], pair.size_b, side)
    if "visibility-scaling" in protocol.compat:
        points_a = points_a * pair.visibility_a[index, None].float()
        points_b = points_b * pair.visibility_b[index, None].float()
    found = find_in_canvas(map_a, points_a, map_b, side, protocol.decode)
    scale = 1.0 if protocol.base in ("canvas", "pixels") else scale_of(pair.size_b, side)
    return _Found(
        index,
        pair.points_a[index],
        from_canvas(found, pair.size_b, side),
        torch.linalg.vector_norm(points_b - found, dim=1),
        _base(pair, protocol, pair.points_a[index]) * scale,
    )


def _planar(map_a: DescriptorMap, map_b: DescriptorMap, pair: Pair, protocol: Protocol) -> _Found:
    if pair.homography is None:
        raise InvalidArgumentError(
            f"pair {pair.name} has no homography, which {protocol.name} needs"
        )
    framed_a, framed_b = _framed(map_a, pair.size_a), _framed(map_b, pair.size_b)
    sources, predicted = match_pair(framed_a, framed_b, pair, protocol)
    distances = point_distances(project(pair.homography, sources), predicted)
    return _Found(
        torch.arange(len(sources)),
        sources,
        predicted,
        distances,
        1.0,
        corner_error(fit_homography(sources, predicted), pair.homography, pair.size_a),
    )


def _framed(described: DescriptorMap, size: tuple[int, int]) -> DescriptorMap:
    # The fitted picture covers the same area as the image, so its grid does as well.
    return DescriptorMap(described.data, Frame(size, described.frame.model_size))


def _base(pair: Pair, protocol: Protocol, sources: Tensor) -> float:
    match protocol.base:
        case "pixels":
            return 1.0
        case "canvas":
            return float(protocol.canvas)
        case "image":
            return float(max(pair.size_b))
        case "points" if "willow-padding" in protocol.compat:
            padded = torch.cat([sources, sources.new_full((1, 2), -1.0)])
            return _extent(padded, pair)
        case "points":
            return _extent(pair.points_b[pair.visible], pair)
    if pair.box_b is None:
        raise InvalidArgumentError(
            f"pair {pair.name} has no box in image B, by which {protocol.name} sets its "
            "thresholds: add one, or use a protocol with base='image'"
        )
    left, top, right, bottom = pair.box_b
    return max(bottom - top, right - left)


def _extent(points: Tensor, pair: Pair) -> float:
    if not len(points):
        return 1.0  # There is nothing to be right or wrong, and any base will do.
    extent = float((points.amax(0) - points.amin(0)).max())
    if not extent:
        raise DatasetError(pair.image_b, f"all keypoints of {pair.name} in it are at one place")
    return extent
