"""A visitor's requests: form values are read and checked here, and answered with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from kornia_ditf.demo.studio import Location, Setting, Studio, as_python, as_values
from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.utils.images import read_image, read_size
from kornia_ditf.utils.picture import Picture
from kornia_ditf.viz.channels import draw_channels, draw_treatments
from kornia_ditf.viz.matches import draw_matches
from kornia_ditf.viz.pca import draw_pca
from kornia_ditf.viz.picture import INK, as_picture, draw_dot, figure_pixels, new_figure, shrink
from kornia_ditf.viz.similarity import draw_similarity

MAX_PIXELS = 24_000_000
PRESET = "preset"
NOTHING = "nothing"
_LONGEST = 1400
_BEST = (40, 200, 90)
_OTHER = (255, 255, 255)
_RED = (230, 60, 50)

_Answer = tuple[Any, ...]


class Requests:
    """Answers to what a visitor asks, as the page's outputs want them.

    Every method takes the files of images A and B, then what its name needs, then `chosen`: the
    five values of a setting (descriptor, block, timestep, treatment, fused with).

    Args:
        studio: computes the answers.

    Raises:
        ImageError: from every method, where an image is missing, unreadable or too large.
        InvalidArgumentError: likewise, where a value cannot be used.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def locate(
        self, path_a: str | None, path_b: str | None, x: Any, y: Any, *chosen: Any
    ) -> _Answer:
        """Find a point of A in B: two pictures, a sentence, the ranking, Python and JSON."""
        a, b = _read_pair(path_a, path_b)
        setting = _read_setting(chosen)
        found = self.studio.locate(setting, a, b, _read_point(x, y))
        ranked = enumerate(zip(found.places, found.scores, strict=True), 1)
        rows = [[rank, f"{u:.1f}", f"{v:.1f}", f"{score:.3f}"] for rank, ((u, v), score) in ranked]
        return (
            draw_point(a, found.point, found.returned),
            draw_location(b, found),
            _describe(found),
            rows,
            as_python(setting, found),
            json.dumps(as_values(setting, found), indent=1),
        )

    def match(self, path_a: str | None, path_b: str | None, search: Any, *chosen: Any) -> _Answer:
        """Match the images: a picture, a sentence, Python and JSON."""
        a, b = _read_pair(path_a, path_b)
        setting = _read_setting(chosen)
        found = self.studio.match(setting, a, b, search=bool(search))
        inliers = found.verification.inliers
        words = (
            f"**{len(found.matches)}** matches, **{int(inliers.sum())}** of them within "
            f"{found.threshold:.1f} px of a common homography."
        )
        if found.chosen:
            attempt = found.attempts[found.chosen]
            words += (
                f" Image B was turned by {attempt.turn:.0f} degrees and described "
                f"{attempt.scale:.2g} times as large."
            )
        return (
            draw_matches(a, b, found.matches, limit=80, inliers=inliers),
            words,
            as_python(setting, found, search=bool(search)),
            json.dumps(as_values(setting, found), indent=1),
        )

    def compare(
        self, path_a: str | None, path_b: str | None, x: Any, y: Any, *chosen: Any
    ) -> _Answer:
        """Find a point with two settings, one after the other in `chosen`; see `locate`."""
        a, b = _read_pair(path_a, path_b)
        place, half = _read_point(x, y), len(chosen) // 2
        results = [
            self.studio.locate(_read_setting(part), a, b, place)
            for part in (chosen[:half], chosen[half:])
        ]
        drawn = [draw_location(b, found) for found in results]
        left, right = (_describe(found) for found in results)
        return *drawn, f"- **left**: {left}\n- **right**: {right}"

    def inspect(
        self, path_a: str | None, path_b: str | None, x: Any, y: Any, *chosen: Any
    ) -> _Answer:
        """Draw principal components of both images, and A's channels and treatments."""
        a, b = _read_pair(path_a, path_b)
        setting = _read_setting(chosen)
        centre = (a.shape[3] - 1) / 2, (a.shape[2] - 1) / 2
        found = self.studio.inspect(setting, a, centre if x is None else _read_point(x, y))
        maps = [self.studio.describe(setting, image) for image in (a, b)]
        colours = draw_pca(maps, foreground=False, long_side=700)
        return *colours, draw_channels(found), draw_treatments(found, a)

    def sweep(
        self,
        path_a: str | None,
        path_b: str | None,
        x: Any,
        y: Any,
        blocks: Any,
        timesteps: Any,
        *chosen: Any,
    ) -> Any:
        """Draw how similar B's places are to the point at several blocks and timesteps."""
        a, b = _read_pair(path_a, path_b)
        numbers = [int(value) for value in _read_numbers("blocks", blocks)]
        steps = _read_numbers("timesteps", timesteps)
        setting, point = _read_setting(chosen), _read_point(x, y)
        cells = self.studio.sweep(setting, a, b, point, numbers, steps)
        return draw_sweep(b, cells, numbers, steps)


def _read_setting(chosen: Sequence[Any]) -> Setting:
    name, block, timestep, treatment, fused = chosen
    return Setting(
        str(name),
        None if block is None else int(block),
        None if timestep is None else float(timestep),
        None if treatment in (None, PRESET) else str(treatment),
        None if fused in (None, NOTHING) else str(fused),
    )


def _read_pair(path_a: str | None, path_b: str | None) -> tuple[Tensor, Tensor]:
    if path_a is None or path_b is None:
        raise ImageError("choose two images first, or click one of the examples")
    return _read(path_a, "A"), _read(path_b, "B")


def _read(path: str, side: str) -> Tensor:
    try:
        height, width = read_size(path)
        if height * width > MAX_PIXELS:
            raise ImageError(
                f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} million; make the "
                "image smaller"
            )
        return read_image(path)
    except ImageError as error:
        # A visitor has no use for the server's folders.
        reason = str(error).replace(str(path), Path(path).name)
        raise ImageError(f"image {side}: {reason}") from error


def _read_point(x: Any, y: Any) -> tuple[float, float]:
    if x is None or y is None:
        raise InvalidArgumentError("click a point in image A first")
    return float(x), float(y)


def _read_numbers(name: str, text: Any) -> list[float]:
    try:
        numbers = [float(part) for part in str(text).split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 1000 for number in numbers):
        raise InvalidArgumentError(f"{name} must be a list such as 1, 3, 5, got {text!r}")
    return numbers


def _describe(found: Location) -> str:
    (x, y), (u, v) = found.point, found.places[0]
    return (
        f"({x:.0f}, {y:.0f}) lands at **({u:.0f}, {v:.0f})** with cosine {found.scores[0]:.3f}; "
        f"looked up from there, it returns {found.cycle_error:.1f} px from where you clicked."
    )


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
