"""Matching the maps of a pair, and scoring its matches, whoever found them, as a protocol does."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.match import match
from kornia_ditf.matching.nearest import mutual_nearest
from kornia_ditf.matching.refinement import refine
from kornia_ditf.metrics.functional import corner_error, point_distances, project
from kornia_ditf.metrics.pose import epipolar_distances, essential_of, normalise
from kornia_ditf.protocols.pose import pose_errors
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.protocols.result import PairResult, make_result
from kornia_ditf.types import DescriptorMap, Matches

_NEEDED = 4
_REPROJECTION = 3.0


def match_pair(
    map_a: DescriptorMap, map_b: DescriptorMap, pair: Pair, protocol: Protocol
) -> tuple[Tensor, Tensor]:
    """Match a pair by mutual nearest neighbours: its keypoints, or tokens if it has none.

    For a pose, tokens are moved in B to where the cosine peaks between them (`refine`).

    Returns:
        (x, y) in A and in B, shapes (K, 2), float64.
    """
    if not len(pair.points_a) or protocol.task == "pose":
        matches = match(map_a, map_b)
        if protocol.task == "pose":
            matches = refine(matches, map_a, map_b)
        return matches.points_a.double().cpu(), matches.points_b.double().cpu()
    # Each keypoint once, in DIFT's order.
    points_a, points_b = (torch.unique(points, dim=0) for points in (pair.points_a, pair.points_b))
    a, b = (
        _sample_as_dift(described, points)
        if "dift-sampling" in protocol.compat
        else described.at(points.to(described.data.device)[None])[0]
        for described, points in ((map_a, points_a), (map_b, points_b))
    )
    indices, _ = mutual_nearest(a, b)
    return points_a[indices[:, 0].cpu()], points_b[indices[:, 1].cpu()]


def score_matches(sources: Tensor, predicted: Tensor, pair: Pair, protocol: Protocol) -> PairResult:
    """Score matches, (x, y) in A and in B, shapes (K, 2), float64, by a pair's homography or pose.

    Raises:
        InvalidArgumentError: the pair lacks what the protocol needs.
    """
    if protocol.task == "homography":
        if pair.homography is None:
            raise InvalidArgumentError(
                f"pair {pair.name} has no homography, which {protocol.name} needs"
            )
        truth = project(pair.homography, sources)
        error = corner_error(fit_homography(sources, predicted), pair.homography, pair.size_a)
        distances, scores = point_distances(truth, predicted), {"corner_error": error}
    elif pair.pose is None:
        raise InvalidArgumentError(f"pair {pair.name} has no pose, which {protocol.name} needs")
    else:
        truth = _on_lines(sources, predicted, pair)
        distances = torch.from_numpy(
            epipolar_distances(sources, predicted, pair.camera_a, pair.camera_b, pair.pose)
        )
        scores = pose_errors(sources.numpy(), predicted.numpy(), pair, protocol)
    return make_result(
        pair,
        protocol,
        distances,
        points=torch.arange(len(sources)),
        sources=sources,
        predicted=predicted,
        truth=truth,
        scores=scores,
    )


def carry_points(matches: Matches, points: Tensor) -> Tensor:
    """Carry points of image A to image B by matches: each moves as the nearest match in A does.

    Args:
        matches: of one pair.
        points: (x, y) in A, shape (K, 2).

    Returns:
        (x, y) in B, shape (K, 2), float64; NaN where there is no match.

    Example:
        >>> found = Matches(torch.zeros(1, 2), torch.tensor([[5.0, 6.0]]), torch.ones(1))
        >>> carry_points(found, torch.tensor([[1.0, 1.0]]))
        tensor([[6., 7.]], dtype=torch.float64)
    """
    points = points.double()
    a, b = matches.points_a.double(), matches.points_b.double()
    if not len(a):
        return torch.full_like(points, torch.nan)
    nearest = torch.cdist(points, a).argmin(1)
    return points + (b - a)[nearest]


def _on_lines(sources: Tensor, predicted: Tensor, pair: Pair) -> Tensor:
    """Return the point of each true epipolar line in B that is nearest to where a match ends."""
    assert pair.pose is not None and pair.camera_b is not None
    a = normalise(sources, pair.camera_a)
    essential, camera = essential_of(pair.pose.numpy()), pair.camera_b.numpy()
    lines = np.c_[a, np.ones(len(a))] @ essential.T @ np.linalg.inv(camera)
    b = predicted.numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        off = (np.sum(lines[:, :2] * b, 1) + lines[:, 2]) / np.sum(lines[:, :2] ** 2, 1)
    return torch.from_numpy(b - np.nan_to_num(off)[:, None] * lines[:, :2])


def fit_homography(points_a: Tensor, points_b: Tensor) -> Tensor | None:
    """Fit a homography by least median of squares, as DIFT's evaluation does.

    Returns:
        shape (3, 3), float64; None where fewer than four points match, or none fits.
    """
    import cv2

    if len(points_a) < _NEEDED:
        return None
    a, b = (each.numpy().astype(np.float32).reshape(-1, 1, 2) for each in (points_a, points_b))
    found, _ = cv2.findHomography(a, b, cv2.LMEDS, ransacReprojThreshold=_REPROJECTION)
    return None if found is None else torch.from_numpy(np.asarray(found, np.float64))


def _sample_as_dift(described: DescriptorMap, points: Tensor) -> Tensor:
    height, width = described.frame.image_size
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    grid = ((points.float() - centre) / centre).to(described.data.device)
    data = described.data.float()
    return F.grid_sample(data, grid[None, :, None], align_corners=False)[0, :, :, 0].T
