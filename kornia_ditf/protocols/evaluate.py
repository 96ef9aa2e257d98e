"""Scoring the descriptors, or the matches, of an annotated pair as a protocol does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kornia_ditf.datasets.files import as_pixels, image_size, is_file
from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.errors import DatasetError, InvalidArgumentError
from kornia_ditf.matching.joint import reduce_pair
from kornia_ditf.matching.keypoints import Target, match_points
from kornia_ditf.matching.poses import POSES, instance_distance, view_in_pose
from kornia_ditf.matching.views import View
from kornia_ditf.metrics.functional import point_distances, project
from kornia_ditf.protocols.canvas import find_in_canvas, from_canvas, scale_of, to_canvas
from kornia_ditf.protocols.matched import carry_points, match_pair, score_matches
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.protocols.result import PairResult, make_result
from kornia_ditf.types import DescriptorMap, Frame, Matches

_WILLOW_SIDE = 256


def evaluate_pair(
    map_a: DescriptorMap | Sequence[DescriptorMap],
    map_b: DescriptorMap,
    pair: Pair,
    protocol: Protocol,
) -> PairResult:
    """Find a pair's points in its second image and score them by a protocol.

    Args:
        map_a: descriptors of image A, fitted by `prepare_image` with this protocol; where it aligns
            poses, those of every view of A (`POSES[protocol.align]`), fitted likewise.
        map_b: descriptors of image B, fitted in the same way.
        pair: what is known of the two images.
        protocol: how to find and score; of the task `keypoints` or `homography`.

    Raises:
        InvalidArgumentError: the maps are not of images fitted for this protocol, or the pair
            lacks what the protocol needs, such as a box.
        DatasetError: an image has another size than is annotated, as the protocol reads it.

    Example:
        >>> from kornia_ditf import load_dataset
        >>> from kornia_ditf.protocols.presets import find_protocol
        >>> pair = load_dataset("folder", "examples/data")[0]
        >>> described = DescriptorMap(torch.rand(1, 8, 32, 40), Frame(pair.size_a, pair.size_a))
        >>> result = evaluate_pair(described, described, pair, find_protocol("ditf-spair"))
        >>> result.hits.shape, result.base
        (torch.Size([3, 60]), 475.0)
    """
    if protocol.align != "none":
        return _evaluate_posed(map_a, map_b, pair, protocol)
    assert isinstance(map_a, DescriptorMap)
    map_a, map_b = reduce_pair(map_a, map_b, protocol.pca)
    if protocol.task == "keypoints":
        return score_points(find_points(map_a, map_b, pair, protocol), pair, protocol)
    check_pair(pair, protocol)
    framed_a, framed_b = _framed(map_a, pair.size_a), _framed(map_b, pair.size_b)
    return score_matches(*match_pair(framed_a, framed_b, pair, protocol), pair, protocol)


def _evaluate_posed(
    maps_a: DescriptorMap | Sequence[DescriptorMap],
    map_b: DescriptorMap,
    pair: Pair,
    protocol: Protocol,
) -> PairResult:
    """Evaluate the view of A that is nearest to B, as if it were A."""
    poses, check = POSES[protocol.align], replace(protocol, align="none")
    if isinstance(maps_a, DescriptorMap) or len(maps_a) != len(poses):
        raise InvalidArgumentError(
            f"{protocol.name} aligns poses: pass the maps of image A in all of them, "
            f"[{'; '.join(poses)}]"
        )
    mask_b = _shown(map_b, pair.size_b, protocol)
    blank = View(torch.zeros(1, 1, 1, 1).expand(1, 1, *pair.size_a))
    views = [view_in_pose(blank, pose) for pose in poses]
    distances = [
        instance_distance(one, map_b, mask_a=_shown(one, view.size, protocol), mask_b=mask_b)
        for one, view in zip(maps_a, views, strict=True)
    ]
    best = distances.index(min(distances))
    matrix = torch.from_numpy(views[best].matrix)
    partners = pair.partners if poses[best].startswith("mirrored") else None
    points = pair.points_a if partners is None else pair.points_a[partners.clamp_min(0)]
    homography = pair.homography
    posed = replace(
        pair,
        image_a=pair.image_a / poses[best],  # which is no file, and has no size of its own
        size_a=views[best].size,
        points_a=project(matrix, points),
        box_a=None,
        homography=None if homography is None else homography @ matrix.inverse(),
    )
    check_pair(pair, check)
    scores = {f"pose_distance@{p}": d for p, d in zip(poses, distances, strict=True)}
    if protocol.task == "homography":
        found = evaluate_pair(maps_a[best], map_b, posed, check)
        sources = project(matrix.inverse(), found.sources)
        return replace(found, sources=sources, scores={**found.scores, **scores})
    places = find_points(*reduce_pair(maps_a[best], map_b, protocol.pca), posed, check)
    if partners is not None:
        # As in the source, points whose partners are not annotated are found in A as it is.
        seen = (partners >= 0) & pair.visible & pair.visible[partners.clamp_min(0)]
        upright = find_points(*reduce_pair(maps_a[0], map_b, protocol.pca), pair, check)
        places = torch.where(seen[pair.visible, None].to(places.device), places, upright)
    found = score_points(places, pair, check)
    return replace(found, scores={**found.scores, **scores})


def _shown(described: DescriptorMap, size: tuple[int, int], protocol: Protocol) -> Tensor | None:
    """Return which tokens of a padded square show the image; None where it is not padded."""
    if not protocol.canvas:
        return None
    centres = Frame((protocol.canvas,) * 2, described.grid).to_image(
        DescriptorMap(described.data, Frame(described.grid, described.grid)).centres()
    )
    x, y = from_canvas(centres, size, protocol.canvas).T
    inside = (x > -0.5) & (x < size[1] - 0.5) & (y > -0.5) & (y < size[0] - 0.5)
    shown: Tensor = inside.view(described.grid)
    return shown


def find_points(
    map_a: DescriptorMap | Target, map_b: DescriptorMap | Target, pair: Pair, protocol: Protocol
) -> Tensor:
    """Find the keypoints of a pair that both images show, as a protocol finds them.

    Of two targets no value is read back from their device, so that the points of many pairs can be
    read together. A target must have been prepared at its image's size.

    Args:
        map_a: descriptors of image A, as in `evaluate_pair`, or what `prepare_target` made of them.
        map_b: the same for image B.
        pair: what is known of the two images.
        protocol: of the task `keypoints`.

    Returns:
        (x, y) in the pixels of B, or of the protocol's padded square, shape (K, 2), on the device
        of the descriptors.

    Raises:
        InvalidArgumentError: the maps are not of images fitted for this protocol.
        DatasetError: an image has another size than is annotated.
    """
    check_pair(pair, protocol)
    points, side = pair.points_a[pair.visible], protocol.canvas
    if not side:
        framed_a, framed_b = (
            each if isinstance(each, Target) else _framed(each, size)
            for each, size in ((map_a, pair.size_a), (map_b, pair.size_b))
        )
        return match_points(framed_a, points, framed_b).points_b
    points = to_canvas(points, pair.size_a, side)
    if "visibility-scaling" in protocol.compat:
        points = points * pair.visibility_a[pair.visible, None].float()
    return find_in_canvas(map_a, points, map_b, side, protocol.decode)


def score_points(places: Tensor, pair: Pair, protocol: Protocol) -> PairResult:
    """Score what `find_points` found of a pair; arguments and errors as `evaluate_pair`."""
    index, side = pair.visible.nonzero()[:, 0], protocol.canvas
    sources, truth = pair.points_a[index], pair.points_b[index]
    if side:
        places = places.cpu()
        fitted = to_canvas(truth, pair.size_b, side)
        if "visibility-scaling" in protocol.compat:
            fitted = fitted * pair.visibility_b[index, None].float()
        distances = torch.linalg.vector_norm(fitted - places, dim=1)
        predicted = from_canvas(places, pair.size_b, side)
        scale = 1.0 if protocol.base in ("canvas", "pixels") else scale_of(pair.size_b, side)
        base = _base(pair, protocol, sources) * scale
    else:
        predicted = places.double().cpu()
        scale_a = scale_b = torch.ones(2, dtype=torch.float64)
        if "willow-padding" in protocol.compat:
            scale_a, scale_b = (
                _WILLOW_SIDE / torch.tensor(size[::-1], dtype=torch.float64)
                for size in (pair.size_a, pair.size_b)
            )
        distances = point_distances(predicted * scale_b, truth * scale_b)
        base = _base(pair, protocol, sources * scale_a)
    return make_result(
        pair,
        protocol,
        distances.nan_to_num(nan=torch.inf),
        base=base,
        points=index,
        sources=sources,
        predicted=predicted,
        truth=truth,
    )


def evaluate_matches(matches: Matches, pair: Pair, protocol: Protocol) -> PairResult:
    """Score the matches of an image matcher on a pair.

    Keypoints are carried by the matches: each moves as the match nearest to it in A does, and is
    wrong where there is no match.

    Args:
        matches: in the pixels of the pair's images.
        pair: what is known of the two images.
        protocol: of the task `keypoints`, `homography` or `pose`.

    Raises:
        InvalidArgumentError: the pair lacks what the protocol needs, such as a box.
        DatasetError: an image has another size than is annotated, as the protocol reads it.

    Example:
        >>> from kornia_ditf import load_dataset
        >>> from kornia_ditf.protocols.presets import find_protocol
        >>> pair = load_dataset("folder", "examples/data")[0]
        >>> right = Matches(pair.points_a, pair.points_b, torch.ones(len(pair.points_a)))
        >>> bool(evaluate_matches(right, pair, find_protocol("plain")).hits.all())
        True
    """
    check_pair(pair, protocol)
    if protocol.task != "keypoints":
        sources, places = (each.double().cpu() for each in (matches.points_a, matches.points_b))
        return score_matches(sources, places, pair, protocol)
    predicted = carry_points(matches, pair.points_a[pair.visible])
    if protocol.canvas:
        predicted = to_canvas(predicted, pair.size_b, protocol.canvas)
    return score_points(predicted, pair, protocol)


def check_pair(pair: Pair, protocol: Protocol) -> None:
    """Raise unless a protocol can score a pair: of its task, its images as large as annotated."""
    if protocol.task == "masks":
        raise InvalidArgumentError(
            f"{protocol.name} scores {protocol.task} of sequences: use evaluate_sequence"
        )
    for path, size in ((pair.image_a, pair.size_a), (pair.image_b, pair.size_b)):
        check_size(path, size, protocol)


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
