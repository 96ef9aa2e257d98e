"""Pictures of matches: two images side by side with lines between the points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_matches
from kornia_ditf.preprocess import ImageLike
from kornia_ditf.types import Matches
from kornia_ditf.utils.checks import check_finite, check_integer
from kornia_ditf.utils.picture import PAPER, Picture
from kornia_ditf.viz.picture import (
    INK,
    SUBPIXEL_BITS,
    as_picture,
    draw_dot,
    map_colours,
    stretch,
    to_grey,
    to_subpixels,
)

if TYPE_CHECKING:
    import numpy.typing as npt

_INLIER = (40, 200, 90)
_OUTLIER = (230, 60, 50)
_GAP = 12
_CAPTION_HEIGHT = 40
_CAPTION_WIDTH = 560
_CANVAS_WIDTHS = (900, 1800)  # smaller pictures are enlarged to the first, larger ones reduced
_CANVAS_HEIGHT = 2000


def draw_matches(
    image_a: ImageLike,
    image_b: ImageLike,
    matches: Matches,
    *,
    limit: int | None = 60,
    inliers: Tensor | npt.NDArray[np.bool_] | None = None,
    caption: bool = True,
) -> Picture:
    """Draw two images side by side with lines between the matched points.

    The best matches tend to crowd in one place, so the lines drawn are the best of each part of
    image A in turn. They are coloured by score, or green and red where `inliers` is given. A
    caption states the number of matches and explains the colours.

    Args:
        image_a: one image, as for `as_image`: a path, a PIL image, an array or a tensor.
        image_b: the same for image B; its size may differ.
        matches: points in the pixels of the two images, shape (K, 2) each.
        limit: maximum number of lines; None draws all matches.
        inliers: which matches are inliers, bool, shape (K,).
        caption: whether to write the caption.

    Returns:
        the picture, shape (H, W, 3), RGB; its size is chosen for a screen.

    Raises:
        InvalidArgumentError: a wrong type, shape, dtype or limit, or points or scores that are not
            finite.
        ImageError: an image cannot be read.

    Example:
        >>> points = torch.tensor([[4.0, 4.0], [20.0, 9.0]])
        >>> matches = Matches(points, points, torch.tensor([0.9, 0.5]))
        >>> image = torch.rand(1, 3, 24, 32)
        >>> draw_matches(image, image, matches).dtype
        dtype('uint8')
    """
    import cv2

    check_matches(matches)
    check_finite(matches.scores, "scores")
    limit = len(matches) if limit is None else limit
    if len(matches):
        check_integer("limit", limit, minimum=1)
    flags = None if inliers is None else _as_flags(inliers, len(matches))
    picture_a, picture_b = as_picture(image_a), as_picture(image_b)
    canvas, zoom, corners = _side_by_side(picture_a, picture_b)
    chosen = _spread(matches, picture_a.shape[:2], limit)
    starts = _place(matches.points_a[chosen], zoom, corners[0])
    ends = _place(matches.points_b[chosen], zoom, corners[1])
    scores = matches.scores[chosen].detach().cpu().float().numpy()
    if flags is None:
        colours = [tuple(colour) for colour in _score_colours(stretch(scores)).tolist()]
    else:
        colours = [_INLIER if inlier else _OUTLIER for inlier in flags[chosen.numpy()]]
    # The best last, so that they lie on top; dots above all lines.
    pairs = list(zip(starts, ends, colours, strict=True))[::-1]
    for start, end, colour in pairs:
        # A dark rim keeps a line readable on any ground.
        for shade, thickness in ((INK, 3), (colour, 1)):
            line = (to_subpixels(start), to_subpixels(end), shade, thickness)
            cv2.line(canvas, *line, cv2.LINE_AA, SUBPIXEL_BITS)
    for start, end, colour in pairs:
        for centre in (start, end):
            draw_dot(canvas, centre, 5, INK)
            draw_dot(canvas, centre, 3.6, colour)
    if not caption:
        return Picture.of(canvas[:-_CAPTION_HEIGHT])
    _write_caption(canvas, matches, scores, flags)
    return canvas


def _side_by_side(
    image_a: Picture, image_b: Picture
) -> tuple[Picture, float, list[tuple[int, int]]]:
    """Make the canvas; returns it, the zoom of the images, and their corners (x, y) on it."""
    import cv2

    width = image_a.shape[1] + image_b.shape[1]
    height = max(image_a.shape[0], image_b.shape[0])
    zoom = float(min(np.clip(width, *_CANVAS_WIDTHS) / width, _CANVAS_HEIGHT / height))
    zoomed = []
    for image in (image_a, image_b):
        size = (max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))
        method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        resized = Picture.of(cv2.resize(image, size, interpolation=method))
        # Lines stand out on a photograph that is lighter and less saturated.
        zoomed.append(cv2.addWeighted(resized, 0.45, to_grey(resized), 0.45, 25))
    height, second = max(len(faded) for faded in zoomed), zoomed[0].shape[1] + _GAP
    shape = (height + _CAPTION_HEIGHT, max(second + zoomed[1].shape[1], _CAPTION_WIDTH), 3)
    canvas = Picture.of(np.full(shape, PAPER))
    corners = []
    for faded, x in zip(zoomed, (0, second), strict=True):
        y = (height - len(faded)) // 2
        canvas[y : y + len(faded), x : x + faded.shape[1]] = faded
        corners.append((x, y))
    return canvas, zoom, corners


def _place(points: Tensor, zoom: float, corner: tuple[int, int]) -> list[list[float]]:
    """Map points (x, y) of an image, shape (K, 2), to the canvas."""
    edges = (points.detach().cpu().double() + 0.5) * zoom - 0.5
    moved = edges + torch.tensor(corner, dtype=torch.float64, device="cpu")
    places: list[list[float]] = moved.clamp(-1e6, 1e6).tolist()  # within OpenCV's 32 bits
    return places


def _spread(matches: Matches, size: tuple[int, ...], limit: int) -> Tensor:
    """Choose matches, the best of each cell of image A first, then the second of each, and so on.

    Returns:
        indices of at most `limit` matches, best score first.
    """
    points, scores = matches.points_a.detach().cpu(), matches.scores.detach().cpu()
    order = scores.argsort(descending=True, stable=True)
    if len(order) <= limit:
        return order
    side = (size[0] * size[1] / limit) ** 0.5
    rounds: dict[tuple[int, ...], int] = {}
    ranked = []
    for index, cell in zip(order.tolist(), (points[order] // side).long().tolist(), strict=True):
        turn = rounds[tuple(cell)] = rounds.get(tuple(cell), -1) + 1
        ranked.append((turn, index))
    chosen = torch.tensor(
        [index for _, index in sorted(ranked, key=lambda item: item[0])[:limit]], device="cpu"
    )
    return chosen[scores[chosen].argsort(descending=True, stable=True)]


def _write_caption(
    canvas: Picture,
    matches: Matches,
    scores: npt.NDArray[np.float32],
    inliers: npt.NDArray[np.bool_] | None,
) -> None:
    top = canvas.shape[0] - _CAPTION_HEIGHT
    baseline = top + 27
    x = 12
    if inliers is not None:
        correct = int(inliers.sum())
        x = _write(canvas, f"{correct} inliers", (x, baseline), _INLIER, dot=True)
        wrong = len(matches) - correct
        x = _write(canvas, f"{wrong} outliers", (x, baseline), _OUTLIER, dot=True)
    elif len(scores):
        x = _write(canvas, f"similarity {scores.min():.2f}", (x, baseline))
        x -= 8
        ramp = np.linspace(0, 1, 120, dtype=np.float32)
        canvas[top + 14 : top + 28, x : x + 120] = _score_colours(ramp)
        x = _write(canvas, f"{scores.max():.2f}", (x + 128, baseline))
    _write(canvas, f"{len(scores)} of {len(matches)} matches drawn", (x, baseline))


def _write(
    canvas: Picture,
    text: str,
    start: tuple[int, int],
    colour: tuple[int, int, int] = INK,
    *,
    dot: bool = False,
) -> int:
    """Write text at its baseline and return the x position after it."""
    import cv2

    x, y = start
    if dot:
        draw_dot(canvas, (x + 6, y - 6), 6, colour)
        x += 20
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.55
    cv2.putText(canvas, text, (x, y), font, size, INK, 1, cv2.LINE_AA)
    return x + cv2.getTextSize(text, font, size, 1)[0][0] + 24


def _score_colours(values: npt.NDArray[np.float32]) -> Picture:
    """Colours of values in [0, 1], shape (K, 3); the map's darkest part is left out."""
    import cv2

    return Picture.of(map_colours(0.2 + 0.8 * values, cv2.COLORMAP_PLASMA).reshape(-1, 3))


def _as_flags(inliers: Tensor | npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.bool_]:
    flags = np.asarray(inliers.cpu() if isinstance(inliers, Tensor) else inliers)
    if flags.shape != (count,) or flags.dtype != np.bool_:
        raise InvalidArgumentError(
            f"inliers must be bool of shape ({count},), got {flags.dtype} of shape {flags.shape}"
        )
    return flags
