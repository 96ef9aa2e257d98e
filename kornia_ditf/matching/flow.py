"""Dense flow: where every pixel of image A lies in image B, and with what confidence.

Tokens of A are matched to tokens of B with sub-token refinement, and their positions are upsampled
to A's pixels. The same from B to A shows which pixels return to where they started.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_pair, full_precision
from kornia_ditf.matching.nearest import nearest_two
from kornia_ditf.matching.refinement import refine
from kornia_ditf.types import DescriptorMap, Matches
from kornia_ditf.utils.checks import check_number, check_one_of
from kornia_ditf.utils.precision import widen


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Position in image B of every pixel of image A.

    Args:
        grid: for `torch.nn.functional.grid_sample` and `kornia.geometry.remap`'s kin: (x, y) in
            B, from -1 to 1 over the image from edge to edge (align_corners=False), float32,
            shape (1, H, W, 2) at the size of A.
        confidence: cosine of the matched tokens, in [-1, 1], shape (1, 1, H, W).
        consistent: whether going to B and back ends close to the start (forward-backward check),
            bool, shape (1, 1, H, W).
        size_b: height and width of image B.
    """

    grid: Tensor
    confidence: Tensor
    consistent: Tensor
    size_b: tuple[int, int]

    @property
    def points(self) -> Tensor:
        """Positions (x, y) in pixels of B, shape (H, W, 2)."""
        size = torch.tensor([self.size_b[1], self.size_b[0]], device=self.grid.device)
        return ((self.grid[0] + 1) * size - 1) / 2

    def warp(
        self, image_b: Tensor, *, mode: str = "bilinear", only_consistent: bool = False
    ) -> Tensor:
        """Warp an image or a mask of B onto A.

        Args:
            image_b: shape (1, C, H, W) or (C, H, W) at B's size, or any with its proportions;
                for masks of whole numbers or bool, `mode` must be `nearest`.
            mode: `bilinear` or `nearest`.
            only_consistent: put 0 where the flow is not consistent.

        Returns:
            shape (1, C, H, W) or (C, H, W) at A's size, in the dtype of `image_b`.

        Raises:
            InvalidArgumentError: another shape or mode, or whole numbers that would be mixed.
        """
        check_one_of("mode", mode, ("bilinear", "nearest"))
        batched = image_b if image_b.ndim == 4 else image_b[None]
        if batched.ndim != 4 or len(batched) != 1:
            raise InvalidArgumentError(
                f"image_b must have the shape (C, H, W) or (1, C, H, W), got {tuple(image_b.shape)}"
            )
        if not image_b.is_floating_point() and mode != "nearest":
            raise InvalidArgumentError(
                f"mode must be 'nearest' for whole numbers, which cannot be mixed, got {mode!r}"
            )
        # In float64 whole numbers stay what they are.
        source = batched if image_b.is_floating_point() else widen(batched)
        warped = F.grid_sample(
            source, self.grid.to(source), mode=mode, padding_mode="border", align_corners=False
        )
        if only_consistent:
            warped = warped * self.consistent
        warped = warped.to(image_b.dtype)
        return warped if image_b.ndim == 4 else warped[0]


def dense_flow(
    map_a: DescriptorMap, map_b: DescriptorMap, *, tolerance: float | None = None
) -> Flow:
    """Find the position in image B of every pixel of image A.

    Each token of A goes to the token of B with the highest cosine (of equals the first), refined
    to where the cosine peaks between tokens; between tokens of A, positions are interpolated.

    Args:
        map_a: descriptors of A, one image.
        map_b: descriptors of B, one image.
        tolerance: largest distance between a pixel and where it returns to from B for it to be
            consistent, in pixels of A, above 0; one and a half cells by default.

    Returns:
        the flow at A's size.

    Raises:
        InvalidArgumentError: several images, different widths or devices, values not finite, or
            a wrong tolerance.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> scene = DescriptorMap(torch.eye(24).view(1, 24, 4, 6), Frame((32, 48), (32, 48)))
        >>> flow = dense_flow(scene, scene)
        >>> flow.grid.shape, bool(flow.consistent.all())
        (torch.Size([1, 32, 48, 2]), True)
    """
    check_pair(map_a, map_b)
    height, width = map_a.frame.image_size
    if tolerance is None:
        tolerance = 1.5 * max(height / map_a.grid[0], width / map_a.grid[1])
    check_number("tolerance", tolerance, "(0, inf]")
    with full_precision(map_a.data.device):
        there = _match_all(map_a, map_b)
        back = _match_all(map_b, map_a)
        places = _enlarge(there.points_b.T, map_a)
        size = torch.tensor(map_b.frame.image_size[::-1], device=places.device)
        grid = (2 * places.permute(0, 2, 3, 1) + 1) / size - 1
        # Where B's tokens lie in A, read at the places in B.
        returned = F.grid_sample(
            back.points_b.T.view(1, 2, *map_b.grid),
            grid,
            padding_mode="border",
            align_corners=False,
        )
        y, x = torch.meshgrid(
            torch.arange(height, device=grid.device),
            torch.arange(width, device=grid.device),
            indexing="ij",
        )
        off = (returned - torch.stack([x, y])).norm(dim=1, keepdim=True)
        confidence = _enlarge(there.scores[None], map_a).clamp(-1, 1)
        return Flow(grid, confidence, off <= tolerance, map_b.frame.image_size)


def _match_all(map_a: DescriptorMap, map_b: DescriptorMap) -> Matches:
    """Match every token of A to its nearest of B, refined."""
    nearest, cosines = nearest_two(map_a.tokens[0], map_b.tokens[0])
    scores = cosines[:, 0].nan_to_num(neginf=0).clamp(-1, 1)  # a zero vector has no direction
    return refine(Matches(map_a.centres(), map_b.centres()[nearest], scores), map_a, map_b)


def _enlarge(values: Tensor, described: DescriptorMap) -> Tensor:
    """Enlarge values (C, tokens) to the image, (1, C, H, W), straight on past the border."""
    size, grid = described.frame.image_size, described.grid
    if min(grid) < 2:
        return F.interpolate(values.view(1, -1, *grid), size, mode="bilinear")
    # One more token all around, extrapolated: at the border places must go on, not stand still.
    maps = values.view(-1, *grid)
    for _ in range(2):  # columns, and then, transposed, rows
        low, high = 2 * maps[..., :1] - maps[..., 1:2], 2 * maps[..., -1:] - maps[..., -2:-1]
        maps = torch.cat([low, maps, high], 2).transpose(1, 2)
    y, x = (
        (torch.arange(pixels, device=maps.device, dtype=maps.dtype) + 0.5) * (tokens / pixels) + 1
        for pixels, tokens in zip(size, grid, strict=True)
    )
    y, x = 2 * y / (grid[0] + 2) - 1, 2 * x / (grid[1] + 2) - 1
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    return F.grid_sample(maps[None], places[None], align_corners=False)
