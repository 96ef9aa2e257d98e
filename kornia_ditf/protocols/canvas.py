"""Points in the padded square of sd-dino and GeoAware-SC.

Their arithmetic (`preprocess_kps_pad`, `kpts_to_patch_idx`), in float32 as
theirs, since a point on the edge of a token or of a threshold is decided by rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.keypoints import WindowSoftArgmax, match_points
from kornia_ditf.protocols.fitting import padded_size
from kornia_ditf.protocols.protocol import Decode
from kornia_ditf.types import DescriptorMap, Frame


def to_canvas(points: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Map points of an image into the padded square.

    Args:
        points: (x, y), shape (K, 2).
        size: height and width of the image.
        side: of the square.

    Returns:
        shape (K, 2), float32.
    """
    return points.float() * scale_of(size, side) + _offset(size, side)


def from_canvas(points: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Map points of the padded square back into the image; float64."""
    return (points.cpu().double() - _offset(size, side)) / scale_of(size, side)


def scale_of(size: tuple[int, int], side: int) -> float:
    """Return the scale of the image in the square."""
    return side / max(size)


def _offset(size: tuple[int, int], side: int) -> Tensor:
    height, width = padded_size(size, side)
    return torch.tensor([(side - width) // 2, (side - height) // 2])


def find_in_canvas(
    map_a: DescriptorMap, points: Tensor, map_b: DescriptorMap, side: int, decode: Decode
) -> Tensor:
    """Find points of one padded square in another, token by token.

    Args:
        map_a: descriptors of the padded image A, on a square grid.
        points: (x, y) in its square, shape (K, 2), float32.
        map_b: descriptors of the padded image B.
        side: of both squares, in whose pixels points are.
        decode: `tokens` or `window`.

    Returns:
        (x, y) in the square of B, shape (K, 2), float32.

    Raises:
        InvalidArgumentError: the grids are not square and equal.
    """
    rows, columns = map_a.grid
    if rows != columns or map_b.grid != map_a.grid:
        raise InvalidArgumentError(
            f"the maps must have one square grid, got {map_a.grid} and {map_b.grid}: describe "
            "images that prepare_image fitted for this protocol"
        )
    cells = Frame((side, side), map_a.grid)
    squares = [DescriptorMap(each.data, cells) for each in (map_a, map_b)]
    # The token that a point lies in, not what lies between tokens.
    tokens = (rows / side * points).to(torch.int64).clamp(0, rows - 1)
    if decode.kind == "window":
        window = WindowSoftArgmax(beta=decode.beta, radius=decode.radius)
        centres = cells.to_image(tokens.float())
        places = match_points(squares[0], centres, squares[1], decode=window).points_b.cpu()
        found = cells.to_model(places).clamp(0, rows - 1)
    else:
        known, sought = (
            torch.nn.functional.normalize(each.tokens[0].float(), dim=1) for each in squares
        )
        best = (known[tokens[:, 1] * rows + tokens[:, 0]] @ sought.T).argmax(1).cpu()
        found = torch.stack([best % rows, best // rows], 1)
    stride = side / rows
    return found * stride + (stride // 2 + decode.offset)
