"""Pictures of dense descriptors: their principal components as colours.

Source: DINOv2 (arXiv 2304.07193), figure 1: the first component of all tokens splits foreground
from background, and three components of the foreground's tokens become red, green and blue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.preprocess import ImageLike
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import check_finite, check_integer
from kornia_ditf.utils.picture import Picture
from kornia_ditf.viz.picture import as_picture, shrink, stretch

_CLIPPED = 0.01
"""Share of the tokens beyond the darkest and beyond the brightest value of a colour."""


@torch.no_grad()
def draw_pca(
    maps: DescriptorMap | Sequence[DescriptorMap],
    *,
    foreground: bool = True,
    long_side: int | None = None,
) -> list[Picture]:
    """Draw descriptors as colours by their principal components, in one basis for all images.

    Args:
        maps: of one image or a batch, or a list of maps of images of any sizes; all by one
            descriptor.
        foreground: leave out the background first, which becomes black: the tokens on one side of
            the first principal component, split by Otsu's threshold; the background is the side
            that has more of the images' borders. False colours all tokens.
        long_side: of each picture, in pixels; None takes the image's own size.

    Returns:
        a picture for each image, RGB, shape (H, W, 3). The same maps give the same picture: each
        component points to where its largest weight is positive.

    Raises:
        InvalidArgumentError: there is no map, they are of different widths, or values are not
            finite.

    Example:
        >>> from kornia_ditf.types import Frame
        >>> maps = DescriptorMap(torch.randn(2, 8, 4, 6), Frame((32, 48), (32, 48)))
        >>> [picture.shape for picture in draw_pca(maps)]
        [(32, 48, 3), (32, 48, 3)]
    """
    images = [one for each in ([maps] if isinstance(maps, DescriptorMap) else maps) for one in each]
    widths = {each.data.shape[1] for each in images}
    if len(widths) != 1:
        raise InvalidArgumentError(
            "draw_pca takes at least one map, and maps of one descriptor, got "
            + (f"widths {', '.join(map(str, sorted(widths)))}" if widths else "none")
        )
    if long_side is not None:
        check_integer("long_side", long_side, minimum=1)
    tokens = torch.cat([F.normalize(each.tokens[0].float().cpu(), dim=1) for each in images])
    check_finite(tokens, "descriptors")
    kept = (
        _foreground(tokens, images)
        if foreground
        else torch.ones(len(tokens), dtype=torch.bool, device="cpu")
    )
    values = _components(tokens, kept, 3)
    edges = torch.tensor([_CLIPPED, 1 - _CLIPPED], device="cpu")
    low, high = torch.quantile(values[kept], edges, dim=0)
    colours = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    counts = [len(each.tokens[0]) for each in images]
    parts = zip(images, torch.split(colours, counts), torch.split(kept, counts), strict=True)
    return [_paint(*part, long_side) for part in parts]


def draw_pca_sheet(
    images: Sequence[ImageLike], maps: Sequence[DescriptorMap], *, long_side: int = 400
) -> Picture:
    """Draw images, below them the components of all their tokens, and those of the foreground."""
    zoomed = [shrink(as_picture(image), long_side) for image in images]
    sides = [max(each.shape[:2]) for each in zoomed]
    rows = [zoomed]
    for foreground in (False, True):
        drawn = draw_pca(maps, foreground=foreground, long_side=long_side)
        rows.append([shrink(each, side) for each, side in zip(drawn, sides, strict=True)])
    return Picture.below([Picture.beside(row) for row in rows])


def _components(tokens: Tensor, kept: Tensor, count: int) -> Tensor:
    """Project all tokens (N, D) to the first principal components of those kept."""
    centred = tokens - tokens[kept].mean(0)
    basis = centred[kept]
    rank = min(basis.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, axes = torch.svd_lowrank(basis, min(count + 5, rank), 4)
    axes = axes[:, :count]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return F.pad(centred @ (axes * largest.sign()), (0, count - axes.shape[1]))


def _foreground(tokens: Tensor, images: Sequence[DescriptorMap]) -> Tensor:
    everything = torch.ones(len(tokens), dtype=torch.bool, device="cpu")
    values = _components(tokens, everything, 1)[:, 0]
    above = _above_otsu(values)
    border = torch.cat([_border(each.grid) for each in images])
    if above[border].float().mean() > above.float().mean():
        above = ~above
    return above if int(above.sum()) > 3 else everything


def _border(grid: tuple[int, int]) -> Tensor:
    inner = torch.zeros(max(0, grid[0] - 2), max(0, grid[1] - 2), dtype=torch.bool, device="cpu")
    return F.pad(inner, (1, 1, 1, 1), value=True)[: grid[0], : grid[1]].flatten()


def _above_otsu(values: Tensor) -> Tensor:
    """Whether values lie above the threshold that separates two groups best (Otsu 1979)."""
    import cv2

    levels = (stretch(values.numpy()) * 255).round().astype(np.uint8)
    _, above = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return torch.from_numpy(above).flatten().bool()


def _paint(
    described: DescriptorMap, colours: Tensor, kept: Tensor, long_side: int | None
) -> Picture:
    height, width = described.frame.image_size
    zoom = 1.0 if long_side is None else long_side / max(height, width)
    size = max(1, round(height * zoom)), max(1, round(width * zoom))
    planes = torch.cat([colours, kept[:, None].float()], 1).T.view(1, 4, *described.grid)
    drawn = F.interpolate(planes, size, mode="bilinear", align_corners=False)[0]
    seen = ((drawn[3:] - 0.25) * 2).clamp(0, 1)  # half dark at the border of the foreground
    return Picture.of((drawn[:3] * seen * 255).round().permute(1, 2, 0).numpy())
