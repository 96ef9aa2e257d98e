"""Matching two views of a plane, and the homography that the matches agree on."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.matching.match import match
from kornia_ditf.matching.nearest import mutual_nearest
from kornia_ditf.matching.refinement import refine
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.types import DescriptorMap

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
    sample = _sample_as_dift if "dift-sampling" in protocol.compat else _sample
    indices, _ = mutual_nearest(sample(map_a, points_a), sample(map_b, points_b))
    return points_a[indices[:, 0].cpu()], points_b[indices[:, 1].cpu()]


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


def _sample(described: DescriptorMap, points: Tensor) -> Tensor:
    return described.at(points.to(described.data.device)[None])[0]


def _sample_as_dift(described: DescriptorMap, points: Tensor) -> Tensor:
    height, width = described.frame.image_size
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    grid = ((points.float() - centre) / centre).to(described.data.device)
    data = described.data.float()
    return F.grid_sample(data, grid[None, :, None], align_corners=False)[0, :, :, 0].T
