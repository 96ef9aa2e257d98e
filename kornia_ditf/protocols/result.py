"""The result of a pair, point by point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.metrics.functional import within
from kornia_ditf.protocols.protocol import Protocol


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairResult:
    """Result of one pair, per point.

    Args:
        name: of the pair.
        category: what it counts under.
        points: which points of the pair these are, shape (K,), int64: those seen in both images.
            For a homography or a pose, the number of the match.
        sources: where they are in image A, (x, y) in its pixels, shape (K, 2).
        predicted: where they were found, (x, y) in the pixels of image B, shape (K, 2).
        truth: where they belong, shape (K, 2); for a pose, the nearest point of the epipolar line.
        distances: to where they belong, shape (K,), in the pixels that the protocol measures in;
            for a pose, squared and in units of the focal length.
        base: what thresholds are relative to, in the same pixels.
        alphas: the thresholds as parts of the base.
        hits: which are correct at each threshold, shape (A, K), bool.
        scores: of the pair as a whole: `corner_error` of the homography that was fitted, in pixels
            of B, or the errors of `pose_errors`; infinite where nothing could be fitted.
    """

    name: str
    category: str
    points: Tensor
    sources: Tensor
    predicted: Tensor
    truth: Tensor
    distances: Tensor
    base: float
    alphas: tuple[float, ...]
    hits: Tensor
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def corner_error(self) -> float | None:
        """Mean distance of the image's corners from where they belong; None without homography."""
        return self.scores.get("corner_error")


def make_result(
    pair: Pair, protocol: Protocol, distances: Tensor, *, base: float = 1.0, **found: Any
) -> PairResult:
    """Create the result of a pair from the distances of its points to their true positions.

    Args:
        pair: which.
        protocol: its thresholds decide which points are correct.
        distances: see `PairResult`, as what follows.
        base: what thresholds are relative to.
        found: `points`, `sources`, `predicted` and `truth`, and `scores` where there are any.
    """
    alphas, single = protocol.alphas, protocol.base == "canvas"
    if protocol.task == "pose":  # in float64, as SuperGlue and LoFTR compare
        hits = distances[None] < torch.tensor(alphas, dtype=torch.float64)[:, None]
    else:
        hits = within(distances, base, alphas, protocol.comparison, single=single)
    return PairResult(
        name=pair.name,
        category=pair.category,
        distances=distances,
        base=base,
        alphas=alphas,
        hits=hits,
        **found,
    )
