"""The plain definitions of what the package computes cleverly, to compare with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.types import DescriptorMap, Frame


def upsample(data: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge (or reduce) maps (B, D, rows, columns) to an image's size."""
    return F.interpolate(data, size, mode="bilinear", align_corners=False)


def similarity(queries: Tensor, data: Tensor, size: tuple[int, int]) -> Tensor:
    """Cosines of (B, K, D) with every pixel of (B, D, rows, columns), shape (B, K, H, W)."""
    pixels = F.normalize(upsample(data, size), dim=1)
    return torch.einsum("bkd,bdhw->bkhw", F.normalize(queries, dim=2), pixels)


def interpolate_at(data: Tensor, x: float, y: float, size: tuple[int, int]) -> Tensor:
    """One image's descriptor (D,) at a point, from the four tokens around it."""
    _, _, rows, columns = data.shape
    column = min(max((x + 0.5) * columns / size[1] - 0.5, 0.0), columns - 1.0)
    row = min(max((y + 0.5) * rows / size[0] - 0.5, 0.0), rows - 1.0)
    left, top = int(column), int(row)
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    across, down = column - left, row - top
    upper = (1 - across) * data[0, :, top, left] + across * data[0, :, top, right]
    lower = (1 - across) * data[0, :, bottom, left] + across * data[0, :, bottom, right]
    return (1 - down) * upper + down * lower


def mutual_nearest(a: Tensor, b: Tensor) -> list[tuple[int, int]]:
    """Pairs (row of a, row of b) that are each other's first greatest cosine; no zero vectors."""
    unit_a, unit_b = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    cosines = unit_a @ unit_b.T
    cosines[(a == 0).all(1)] = -torch.inf
    cosines[:, (b == 0).all(1)] = -torch.inf
    if not cosines.numel():
        return []
    nearest_b, nearest_a = cosines.argmax(1).tolist(), cosines.argmax(0).tolist()
    return [
        (i, j) for i, j in enumerate(nearest_b) if nearest_a[j] == i and cosines[i, j] > -torch.inf
    ]


def smooth_map(shift: tuple[float, float], size: int = 96) -> DescriptorMap:
    """A smooth random field, seen through a window that is moved by (x, y) pixels."""
    generator = torch.Generator().manual_seed(0)
    waves = 0.06 * torch.randn(2, 24, generator=generator)
    phases = 6.28 * torch.rand(24, generator=generator)
    y, x = torch.meshgrid(*2 * [8 * torch.arange(size // 8) + 3.5], indexing="ij")
    places = (x + shift[0])[..., None] * waves[0] + (y + shift[1])[..., None] * waves[1]
    return DescriptorMap(
        (places + phases).sin().permute(2, 0, 1)[None], Frame((size, size), (size, size))
    )


def check_mutual(a: Tensor, b: Tensor, indices: Tensor, tie: float = 1e-6) -> None:
    """Assert that the pairs are all the mutual nearest ones, but for ties."""
    unit_a, unit_b = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    cosines = unit_a @ unit_b.T
    cosines[(a == 0).all(1)] = -torch.inf
    cosines[:, (b == 0).all(1)] = -torch.inf
    if not cosines.numel():
        assert indices.shape == (0, 2)
        return
    rows, columns = indices.unbind(1)
    assert len(rows.unique()) == len(columns.unique()) == len(rows)
    found = cosines[rows, columns]
    assert bool((found > cosines[rows].amax(1) - tie).all())
    assert bool((found > cosines[:, columns].amax(0) - tie).all())
    in_row = cosines > cosines.amax(1, keepdim=True) - tie
    in_column = cosines > cosines.amax(0) - tie
    alone = in_row & in_column & (in_row.sum(1, keepdim=True) == 1) & (in_column.sum(0) == 1)
    pairs = {tuple(pair) for pair in indices.tolist()}
    assert pairs >= {tuple(pair) for pair in alone.nonzero().tolist()}
