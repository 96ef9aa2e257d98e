"""Sub-token refinement: the position between tokens at which the cosine peaks.

Tokens match at their centres, so the point in image B is off by up to half a cell. Around it the
cosine with the point of A is a smooth surface, and its peak says where in the cell the match lies.
Texture skews that surface; it skews the surface of A around its own point likewise, where the peak
is known, so the offset found there is subtracted.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.matching.checks import check_pair, full_precision
from kornia_ditf.matching.similarity import mean_places
from kornia_ditf.types import DescriptorMap, Frame, Matches
from kornia_ditf.utils.checks import check_integer, check_number, check_one_of

Method = Literal["parabola", "softargmax"]

_CHUNK = {"cpu": 256, "cuda": 1 << 11}
"""Matches whose neighbourhoods are read at one time."""


def refine(
    matches: Matches,
    map_a: DescriptorMap,
    map_b: DescriptorMap,
    *,
    method: Method = "parabola",
    radius: int = 1,
    beta: float = 0.1,
) -> Matches:
    """Refine the points of image B to where the cosine peaks between tokens.

    Args:
        matches: of one pair of images, as `match` gives them.
        map_a: descriptors of A, one image.
        map_b: descriptors of B, one image.
        method: `parabola` fits one through the cosines of the token and its two neighbours, along
            x and y each; `softargmax` takes the mean position of the tokens around, weighted by
            a softmax of their cosines.
        radius: of the window of `softargmax`, in tokens, at least 1.
        beta: its temperature, above 0.

    Returns:
        the matches with other points_b, at most half a cell away for `parabola` and `radius`
        cells for `softargmax`; points_a, scores and order as they were. An image matched with
        itself is left as it is.

    Raises:
        InvalidArgumentError: several images, different widths or devices, or a wrong number.

    Example:
        >>> frame = Frame((8, 24), (8, 24))
        >>> a = DescriptorMap(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), Frame((8, 8), (8, 8)))
        >>> b = torch.tensor([[0.5, 1.0, 0.8], [0.9, 0.0, 0.6]]).view(1, 2, 1, 3)
        >>> point = torch.tensor([[3.5, 3.5]])
        >>> coarse = Matches(point, torch.tensor([[11.5, 3.5]]), torch.ones(1))
        >>> refine(coarse, a, DescriptorMap(b, frame), method="parabola").points_b
        tensor([[13.2602,  3.5000]])
    """
    check_one_of("method", method, get_args(Method))
    check_integer("radius", radius, 1)
    check_number("beta", beta, "(0, inf]")
    check_pair(map_a, map_b)
    with full_precision(map_b.data.device):
        queries = map_a.at(matches.points_a[None])[0]
        # What A's own surface finds beside its point, it finds beside that of B too.
        _, skew = _locate(queries, map_a, matches.points_a, method, radius, beta)
        places, shift = _locate(queries, map_b, matches.points_b, method, radius, beta)
        limit = 0.5 if method == "parabola" else radius
        start = places.round()
        moved = start + (places + shift - start - skew).clamp(-limit, limit)
        refined = Frame(map_b.frame.image_size, map_b.grid).to_image(moved)
    return Matches(matches.points_a, refined.to(matches.points_b), matches.scores)


def _locate(
    queries: Tensor,
    described: DescriptorMap,
    points: Tensor,
    method: Method,
    radius: int,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Find the peak near each point: the points in tokens, and how far the peak is from them."""
    places = Frame(described.frame.image_size, described.grid).to_model(points)
    tokens, peaks = described.tokens[0].float(), []
    some = _CHUNK.get(tokens.device.type, _CHUNK["cuda"])
    for query, near in zip(
        torch.split(queries, some), torch.split(places.round().long(), some), strict=True
    ):
        if method == "parabola":
            shift = _peak(_surface(query, near, tokens, described.grid, 1))
        else:
            surface = _surface(query, near, tokens, described.grid, radius)
            weights = (surface.flatten(1) / beta).softmax(1).view_as(surface)
            shift = mean_places(weights) - radius
        peaks.append(near + shift)
    return places, torch.cat(peaks) - places


def _surface(
    queries: Tensor, centre: Tensor, tokens: Tensor, grid: tuple[int, int], reach: int
) -> Tensor:
    """Read cosines around tokens (x, y), shape (K, rows, columns); -inf beyond the grid."""
    rows, columns = grid
    step = torch.arange(-reach, reach + 1, device=tokens.device)
    x, y = centre[:, None, None, 0] + step, centre[:, None, None, 1] + step[:, None]
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    near = F.normalize(tokens[y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)], dim=-1)
    cosines = (near @ queries[:, None, :, None])[..., 0]
    return cosines.masked_fill(~inside, -torch.inf)


def _peak(surface: Tensor) -> Tensor:
    """Find the vertex of a parabola along x and y, from cosines (K, 3, 3); shape (K, 2)."""
    shifts = []
    for low, middle, high in (surface[:, 1].unbind(1), surface[:, :, 1].unbind(1)):
        bend = 2 * middle - low - high
        # No shift beyond the grid, where a neighbour is lacking, nor where there is no peak.
        peaked = bend.isfinite() & (bend > 1e-9)
        shifts.append(torch.where(peaked, (high - low) / (2 * bend), 0).clamp(-0.5, 0.5))
    return torch.stack(shifts, 1)
