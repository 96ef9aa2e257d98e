"""Matchers of descriptors for Kornia's `LocalFeatureMatcher`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.matching.nearest import check_limits, mutual_nearest, nearest_two

NEIGHBOURHOOD = 0.04
"""Default radius of `RatioMatcher`, as a fraction of the image's longer side."""


class CosineMatcher(nn.Module):
    """Mutual nearest neighbours by cosine, as a Kornia descriptor matcher.

    Args:
        min_score: drop matches of a lower cosine, in [-1, 1].

    Example:
        >>> distances, indices = CosineMatcher()(torch.eye(3), torch.eye(3)[[2, 0]])
        >>> indices
        tensor([[0, 1],
                [2, 0]])
    """

    def __init__(self, min_score: float | None = None) -> None:
        super().__init__()
        check_limits(min_score, None, 0)
        self.min_score = min_score

    def extra_repr(self) -> str:
        return f"min_score={self.min_score}"

    def forward(self, desc1: Tensor, desc2: Tensor) -> tuple[Tensor, Tensor]:
        """Match descriptors (N, D) and (M, D).

        Returns:
            1 - cosine, shape (K, 1), differentiable, and index pairs, shape (K, 2). Zero vectors
            match nothing.
        """
        indices, scores = mutual_nearest(desc1.detach(), desc2.detach(), min_score=self.min_score)
        if torch.is_grad_enabled() and (desc1.requires_grad or desc2.requires_grad):
            a, b = indices.unbind(1)
            scores = F.cosine_similarity(desc1[a].float(), desc2[b].float())
        return 1 - scores[:, None], indices


class RatioMatcher(nn.Module):
    """Nearest neighbours with a ratio test that ignores the neighbourhood of the nearest.

    Descriptors of neighbouring positions are nearly equal in a dense map, so the ratio of the
    nearest to the plain second nearest is close to 1 for right and wrong matches alike. As in
    FGINN, the second nearest is therefore searched outside a radius around the first.

    Source: Mishkin et al., MODS, arXiv 1503.02619 (first geometrically inconsistent neighbour).

    Args:
        ratio: keep matches whose distance (L2 of unit vectors) is at most `ratio` times that of
            the second nearest, in (0, 1].
        radius: of the neighbourhood, in pixels. None takes 4 % of the image's longer side in
            `DiTFMatcher`, which is 1.6 to 3.4 tokens of most presets; without the image it takes
            10 pixels, as Kornia's FGINN does.
        mutual: keep only mutual nearest neighbours that pass the test in both directions.

    Raises:
        InvalidArgumentError: a number out of range.

    Example:
        >>> import kornia.feature as KF
        >>> centres = torch.tensor([[[5.0, 5.0], [40.0, 5.0], [41.0, 5.0]]])
        >>> lafs = KF.laf_from_center_scale_ori(centres)
        >>> descriptors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.01, 1.0]])
        >>> RatioMatcher()(descriptors, descriptors, lafs, lafs)[1].tolist()
        [[0, 0], [1, 1], [2, 2]]
    """

    def __init__(
        self, ratio: float = 0.8, *, radius: float | None = None, mutual: bool = True
    ) -> None:
        super().__init__()
        check_limits(None, ratio, 0 if radius is None else radius)
        self.ratio, self.radius, self.mutual = ratio, radius, mutual

    def extra_repr(self) -> str:
        return f"ratio={self.ratio}, radius={self.radius}, mutual={self.mutual}"

    def forward(
        self,
        desc1: Tensor,
        desc2: Tensor,
        lafs1: Tensor,
        lafs2: Tensor,
        radii: tuple[float, float] = (10.0, 10.0),
    ) -> tuple[Tensor, Tensor]:
        """Match descriptors (N, D) and (M, D) of frames (1, N, 2, 3) and (1, M, 2, 3).

        Args:
            desc1: descriptors of image 1.
            desc2: descriptors of image 2.
            lafs1: their frames.
            lafs2: their frames.
            radii: neighbourhoods in pixels of both images, where the module has none of its own.

        Returns:
            ratios, shape (K, 1), the larger of both directions with `mutual`, and index pairs,
            shape (K, 2). A descriptor without a second candidate outside the neighbourhood
            matches nothing.
        """
        if self.radius is not None:
            radii = (self.radius, self.radius)
        points1, points2 = lafs1[0, :, :, 2].float(), lafs2[0, :, :, 2].float()
        nearest, ratios = _nearest_and_ratio(desc1, desc2, points2, radii[1])
        row = torch.arange(len(nearest), device=nearest.device)
        keep = ratios <= self.ratio
        if self.mutual:
            back, others = _nearest_and_ratio(desc2, desc1, points1, radii[0])
            ratios = torch.maximum(ratios, others[nearest])
            keep = (back[nearest] == row) & (ratios <= self.ratio)
        return ratios[keep, None], torch.stack([row, nearest], 1)[keep]


def _nearest_and_ratio(
    queries: Tensor, candidates: Tensor, positions: Tensor, radius: float
) -> tuple[Tensor, Tensor]:
    """Return each query's nearest candidate, and its distance over that of the second outside."""
    nearest, cosines = nearest_two(queries, candidates, positions, radius=radius)
    first, second = (2 - 2 * cosines).clamp_min(0).sqrt().unbind(1)
    return nearest, (first / second).where(second.isfinite(), torch.inf)
