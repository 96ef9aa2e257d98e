"""Exact cosines of query descriptors with every pixel of an upsampled token grid.

The plain way upsamples the grid F to the image, a tensor of D x H x W, and normalises every pixel.
Upsampling `up` is linear and bilinear, so the same cosine follows from small things. The products
with a query are the upsampled products with the tokens,

    <q, up(F)> = up(<q, F>),

and a pixel's squared length is a weighted sum of products between neighbouring tokens. With U the
interpolation matrix of an axis, U2 its entries squared, V[p, i] = 2 U[p, i] U[p, i + 1], and G, Gx,
Gy, Gd each token's product with itself, its right, its lower and (the mean of both) its diagonal
neighbours,

    |up(F)|^2 = [U2y Vy] [[G, Gx], [Gy, Gd]] [U2x Vx]^T.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.precision import widen

_PIXELS = 1 << 18
"""So many pixels are computed at one time, of several queries where images are small."""

_PRODUCTS = 1 << 22
"""So many products of queries and tokens are held at one time."""

_CANCELLED = 4096
"""Below so many roundings of its tokens' squared lengths, a pixel's squared length is noise."""


def cosine_planes(
    queries: Tensor, tokens: Tensor, size: tuple[int, int], inverses: Tensor | None = None
) -> Iterator[Tensor]:
    """Compare queries with every pixel of the upsampled tokens, some queries at a time.

    Args:
        queries: vectors of unit length, shape (K, D), float32.
        tokens: descriptors of one image, shape (rows, columns, D), float32.
        size: height and width of the image.
        inverses: what `inverse_lengths` gives for these tokens, where it is already known.

    Yields:
        cosines, shape (some, H, W), in [-1, 1] up to rounding; 0 where the upsampled vector is
        zero. In the order of the queries.

    Example:
        >>> tokens = torch.eye(4).view(2, 2, 4)
        >>> [planes] = cosine_planes(torch.eye(4)[:1], tokens, (2, 3))
        >>> planes[0]
        tensor([[1.0000, 0.7071, 0.0000],
                [0.0000, 0.0000, 0.0000]])
    """
    rows, columns = tokens.shape[:2]
    if inverses is None:
        inverses = inverse_lengths(tokens, size)
    vertical, horizontal = _weights(rows, size[0], tokens), _weights(columns, size[1], tokens)
    # The tokens are read once for many queries; planes are large, so they come in smaller pieces.
    for many in torch.split(queries, max(1, _PRODUCTS // (rows * columns))):
        products = (many @ tokens.flatten(0, 1).T).view(-1, rows, columns)
        for some in torch.split(products, max(1, _PIXELS // (size[0] * size[1]))):
            yield (vertical @ (some @ horizontal.T)).mul_(inverses)


def token_cosines(map_a: DescriptorMap, point: tuple[float, float], map_b: DescriptorMap) -> Tensor:
    """Compare a point of A, (x, y) in pixels, with the tokens of B; on the CPU, (rows, columns)."""
    query = map_a.at(torch.tensor([[point]]))[0, 0]
    return (F.normalize(map_b.tokens[0].float(), dim=-1) @ query).reshape(map_b.grid).cpu()


def inverse_lengths(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Return one over the length of every upsampled vector.

    Args:
        tokens: descriptors of one image, shape (rows, columns, D), float32.
        size: height and width of the image.

    Returns:
        shape (H, W), float32; 0 where the upsampled vector is zero.
    """
    rows, columns = tokens.shape[:2]
    vertical, horizontal = (
        _pair_weights(rows, size[0], tokens),
        _pair_weights(columns, size[1], tokens),
    )
    products = _neighbour_products(tokens)
    squares = vertical @ products @ horizontal.T
    # What it would be at least if the tokens were orthogonal: the same sum without neighbours.
    alone = vertical[:, :rows] @ products[:rows, :columns] @ horizontal[:, :columns].T
    noise = _CANCELLED * torch.finfo(squares.dtype).eps * alone
    return torch.where(squares > noise, squares.rsqrt(), 0).float()


def mean_places(weights: Tensor) -> Tensor:
    """Return the mean place (x, y) of weights (K, rows, columns) that add up to 1, (K, 2)."""
    row, column = (
        torch.arange(count, device=weights.device, dtype=weights.dtype)
        for count in weights.shape[1:]
    )
    return torch.stack([weights.sum(1) @ column, weights.sum(2) @ row], 1)


def near_places(places: Tensor, shape: tuple[int, int], radius: int) -> Tensor:
    """Whether cells of a grid lie within a radius of (x, y), shape (K, 2), along x and y both."""
    row, column = (torch.arange(count, device=places.device) for count in shape)
    near_x = (column - places[:, :1]).abs() <= radius
    near_y = (row - places[:, 1:]).abs() <= radius
    return near_y[:, :, None] & near_x[:, None, :]


def _weights(tokens: int, pixels: int, like: Tensor) -> Tensor:
    # Interpolating the unit vectors gives the matrix with the very rounding of F.interpolate.
    units = torch.eye(tokens, device=like.device, dtype=like.dtype)[None]
    return F.interpolate(units, pixels, mode="linear")[0].T


def _pair_weights(tokens: int, pixels: int, like: Tensor) -> Tensor:
    weights = widen(_weights(tokens, pixels, like))
    neighbours = F.pad(2 * weights[:, :-1] * weights[:, 1:], (0, 1))
    return torch.cat([weights.square(), neighbours], 1)


def _neighbour_products(tokens: Tensor) -> Tensor:
    """Products [[G, Gx], [Gy, Gd]], shape (2 * rows, 2 * columns), in float64 if there is."""
    # float64, for where neighbours almost cancel, the squared length is a difference of large
    # numbers. Row by row, for that stays in the cache: it is no slower than float32 was.
    rows, columns = tokens.shape[:2]
    products = widen(tokens.new_zeros(2 * rows, 2 * columns))
    itself, right = products[:, :columns], products[:, columns : 2 * columns - 1]
    dot = torch.linalg.vecdot
    lower = widen(tokens[0])
    for row in range(rows):
        upper = lower
        itself[row] = dot(upper, upper)
        right[row] = dot(upper[:-1], upper[1:])
        if row + 1 < rows:
            lower = widen(tokens[row + 1])
            itself[rows + row] = dot(upper, lower)
            diagonals = dot(upper[:-1], lower[1:]) + dot(upper[1:], lower[:-1])
            right[rows + row] = diagonals / 2
    return products
