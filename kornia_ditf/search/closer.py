"""A second, closer look at matches: parts of both images at several times the resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.matching.joint import PCA, reduce_pair
from kornia_ditf.matching.refinement import refine
from kornia_ditf.matching.views import View
from kornia_ditf.types import DescriptorMap, Matches
from kornia_ditf.utils.checks import check_integer

_KEPT = 24
"""Described parts of an image that are kept in memory."""

_MARGIN = 0.2
"""Of a part on each side, beyond the cell whose points are read in it."""

_CHUNK = 128
"""Matches whose surroundings are read at one time."""


def look_closer(
    matches: Matches,
    view_a: View,
    view_b: View,
    descriptor: DenseDescriptor,
    tokens: tuple[float, float],
    count: int,
    zoom: int,
    prompts: Sequence[str | None],
    pca: PCA,
) -> tuple[Matches, float]:
    """Find each match's point of B again, close to where it was, at a higher resolution.

    The images are cut into cells, and each cell that holds matches is described with a margin
    around it. A point of A is compared with the part of B around its match, up to one token of the
    first look away, and moved to where the cosine peaks. Every match is kept.

    `tokens` are the sides of a token of the first look, in pixels of each view, and `count` is how
    many of them lie along the longest side of what the descriptor describes. `zoom` is how many
    times smaller tokens should be; none gets smaller than where the descriptor sees the view's own
    pixels. Returns the matches with other points_b and the cosines there, and the side of a token
    of the second look, in pixels of B.
    """
    check_integer("zoom", zoom, minimum=1)
    if not len(matches):
        return matches, tokens[1]
    parts_a, parts_b = (
        _Parts(view, descriptor, token * count / zoom, prompt)
        for view, token, prompt in zip((view_a, view_b), tokens, prompts, strict=True)
    )
    cells = torch.cat([parts_a.cells(matches.points_a), parts_b.cells(matches.points_b)], 1)
    groups, which = torch.unique(cells, dim=0, return_inverse=True)
    points, scores = matches.points_b.clone(), matches.scores.clone()
    for number, cell in enumerate(groups.tolist()):
        rows = (which == number).nonzero().flatten()
        corner_a, map_a = parts_a.describe(cell[0], cell[1])
        corner_b, map_b = parts_b.describe(cell[2], cell[3])
        map_a, map_b = reduce_pair(map_a, map_b, pca)
        some = matches[rows]
        near = Matches(some.points_a - corner_a, some.points_b - corner_b, some.scores)
        found = _nearest_around(near, map_a, map_b, tokens[1])
        points[rows] = refine(found, map_a, map_b).points_b + corner_b
        scores[rows] = found.scores
    return replace(matches, points_b=points, scores=scores), parts_b.part / count


class _Parts:
    """The cells of a view, each described with what lies around it; the latest are kept."""

    def __init__(
        self, view: View, descriptor: DenseDescriptor, side: float, prompt: str | None
    ) -> None:
        self.view, self.descriptor, self.prompt = view, descriptor, prompt
        whole = max(view.size)
        # Parts smaller than what the descriptor sees would be enlarged.
        self.part = min(whole, max(descriptor.long_side or whole, round(side)))
        self.cell = max(1, round(self.part * (1 - 2 * _MARGIN)))
        self.describe = lru_cache(_KEPT)(self._describe)

    def cells(self, points: Tensor) -> Tensor:
        """Return the cell (x, y) of each point, int64, shape (K, 2)."""
        size = points.new_tensor([self.view.size[1], self.view.size[0]])
        inside = torch.minimum(points.clamp_min(0), size - 1)
        return (inside / self.cell).floor().long()

    def _describe(self, x: int, y: int) -> tuple[Tensor, DescriptorMap]:
        """Describe the part around a cell; returns its corner (x, y) and its descriptors."""
        height, width = self.view.size
        margin = (self.part - self.cell) // 2
        left = max(0, min(x * self.cell - margin, width - self.part))
        top = max(0, min(y * self.cell - margin, height - self.part))
        cut = self.view.image[:, :, top : top + self.part, left : left + self.part]
        corner = torch.tensor([float(left), float(top)], device="cpu")
        return corner, self.descriptor(cut, self.prompt)


def _nearest_around(
    matches: Matches, map_a: DescriptorMap, map_b: DescriptorMap, reach: float
) -> Matches:
    """Move points of B to the most similar of the places around them, a token apart."""
    queries = map_a.at(matches.points_a[None])[0]
    height, width = map_b.frame.image_size
    pitch = max(height / map_b.grid[0], width / map_b.grid[1])
    steps = torch.arange(-round(reach / pitch), round(reach / pitch) + 1, device="cpu") * pitch
    offsets = torch.cartesian_prod(steps, steps).to(matches.points_b)
    limit = matches.points_b.new_tensor([width - 1, height - 1])
    points, scores = [], []
    for some, query in zip(
        torch.split(matches.points_b, _CHUNK), torch.split(queries, _CHUNK), strict=True
    ):
        places = torch.minimum((some[:, None] + offsets).clamp_min(0), limit)
        read = map_b.at(places.view(1, -1, 2))[0].view(*places.shape[:2], -1)
        cosines = F.cosine_similarity(read, query[:, None], dim=2)
        best = cosines.argmax(1)
        points.append(places[torch.arange(len(best), device=best.device), best])
        scores.append(cosines.amax(1))
    return replace(matches, points_b=torch.cat(points), scores=torch.cat(scores))
