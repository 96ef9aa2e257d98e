"""Points in the padded square of sd-dino and GeoAware-SC.

Their arithmetic (`preprocess_kps_pad`, `kpts_to_patch_idx`), in float32 as
theirs, since a point on the edge of a token or of a threshold is decided by rounding.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.keypoints import Target, WindowSoftArgmax, match_points, prepare_target
from kornia_ditf.protocols.fitting import padded_size
from kornia_ditf.protocols.protocol import Decode
from kornia_ditf.types import DescriptorMap, Frame


def to_canvas(points: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Map points (x, y) of an image, shape (K, 2), into the padded square of a side; float32."""
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
    map_a: DescriptorMap | Target,
    points: Tensor,
    map_b: DescriptorMap | Target,
    side: int,
    decode: Decode,
) -> Tensor:
    """Find points of one padded square in another, token by token.

    Args:
        map_a: descriptors of the padded image A, on a square grid, or a target made of them.
        points: (x, y) in its square, shape (K, 2), float32.
        map_b: the same for image B.
        side: of both squares, in whose pixels points are.
        decode: `tokens` or `window`.

    Returns:
        (x, y) in the square of B, shape (K, 2), float32, on the device of the maps.

    Raises:
        InvalidArgumentError: the grids are not square and equal.
    """
    (rows, columns), grid_b = map_a.grid, map_b.grid
    if rows != columns or grid_b != (rows, columns):
        raise InvalidArgumentError(
            f"the maps must have one square grid, got {(rows, columns)} and {grid_b}: describe "
            "images that prepare_image fitted for this protocol"
        )
    cells = Frame((side, side), (rows, columns))
    known, sought = (
        replace(
            each if isinstance(each, Target) else prepare_target(each, pixels=False), frame=cells
        )
        for each in (map_a, map_b)
    )
    # The token that a point lies in, not what lies between tokens.
    tokens = (rows / side * points).to(torch.int64).clamp(0, rows - 1)
    if decode.kind == "window":
        window = WindowSoftArgmax(beta=decode.beta, radius=decode.radius)
        centres = cells.to_image(tokens.float())
        places = match_points(known, centres, sought, decode=window).points_b
        found = cells.to_model(places).clamp(0, rows - 1)
    else:
        asked = known.tokens[0, tokens[:, 1], tokens[:, 0]]
        cosines = asked @ sought.tokens[0].flatten(0, 1).T * sought.inverses[0].flatten()
        best = cosines.argmax(1)
        found = torch.stack([best % rows, best // rows], 1)
    stride = side / rows
    return found * stride + (stride // 2 + decode.offset)
