"""Pictures of the demo: a point and its places, and a grid of blocks and timesteps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from kornia_ditf.demo.studio import Location
from kornia_ditf.utils.picture import Picture
from kornia_ditf.viz.picture import INK, as_picture, draw_dot, figure_pixels, new_figure, shrink
from kornia_ditf.viz.similarity import draw_similarity

_LONGEST = 1400
_BEST = (40, 200, 90)
_OTHER = (255, 255, 255)
_RED = (230, 60, 50)


def draw_point(image: Tensor, point: tuple[float, float], returned: tuple[float, float]) -> Picture:
    """Draw the point of A, and in white where its best match leads back to.

    Args:
        image: shape (1, 3, H, W), RGB in [0, 1].
        point: (x, y) in its pixels.
        returned: likewise.

    Returns:
        the picture, (H', W', 3), RGB, at most 1,400 pixels long.
    """
    picture = shrink(as_picture(image), _LONGEST)
    zoom = picture.shape[1] / image.shape[3]
    _mark(picture, returned, zoom, _OTHER)
    _mark(picture, point, zoom, _RED)
    return picture


def draw_location(image: Tensor, found: Location) -> Picture:
    """Draw how similar each place of B is to the point, and the best ones with their ranks."""
    small = shrink(as_picture(image), _LONGEST)
    zoom = small.shape[1] / image.shape[3]
    picture = draw_similarity(small, found.similarity)
    for rank, place in reversed(list(enumerate(found.places, 1))):
        _mark(picture, place, zoom, _BEST if rank == 1 else _OTHER, label=str(rank))
    return picture


def draw_sweep(
    image: Tensor,
    cells: Mapping[tuple[int, float], Tensor],
    blocks: Sequence[int],
    timesteps: Sequence[float],
) -> Picture:
    """Draw the similarity maps of several blocks (rows) and timesteps (columns)."""
    small = shrink(as_picture(image), 320)
    height = 2.6 * small.shape[0] / small.shape[1] + 0.3
    size = (2.6 * len(timesteps) + 0.5, height * len(blocks) + 0.3)
    figure, canvas = new_figure(*size)
    axes = figure.subplots(len(blocks), len(timesteps), squeeze=False)
    for row, block in enumerate(blocks):
        for column, timestep in enumerate(timesteps):
            place = axes[row, column]
            place.imshow(draw_similarity(small, cells[block, timestep]))
            place.set_xticks([])
            place.set_yticks([])
            if row == 0:
                place.set_title(f"timestep {timestep:g}", fontsize=9)
            if column == 0:
                place.set_ylabel(f"block {block}", fontsize=9)
    return figure_pixels(canvas)


def _mark(
    picture: Picture,
    point: tuple[float, float],
    zoom: float,
    colour: tuple[int, int, int],
    label: str = "",
) -> None:
    import cv2

    x, y = (round((coordinate + 0.5) * zoom - 0.5) for coordinate in point)
    radius = max(5, max(picture.shape[:2]) // 90)
    draw_dot(picture, (x, y), radius + 2, INK)
    draw_dot(picture, (x, y), radius, colour)
    if label:
        size = radius / 14
        (width, height), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        corner = (x - width // 2, y + height // 2)
        cv2.putText(picture, label, corner, cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)
