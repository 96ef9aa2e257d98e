"""Draw pairs of views with known correspondence from photographs.

A view is a window of a photograph under a homography, with its own light, blur, noise and
compression. A quarter of the pairs moves sideways alone, as a stereo camera does, over a slanted
ground; the others differ in turn, up to the full circle, and in scale, up to 3.3 times. Half of the
pairs are bent smoothly. Over them lie up to four pieces of photographs that move on their own: they
hide and uncover what is behind them, as depth does between two cameras.
Every draw comes from the generator that is passed in, so a pair is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Bytes of shape (H, W) or (H, W, 3), and floating point of any shape.
Image = NDArray[Any]
Array = NDArray[Any]

# How far the second view is turned, to either side at most, and how often.
TURNS = np.deg2rad([10, 30, 60, 180])
TURN_SHARES = (0.15, 0.25, 0.45, 0.15)
# How much larger or smaller the second view shows the scene, at most, and how often.
ZOOMS = np.log([1.15, 2, 3.3])
ZOOM_SHARES = (0.35, 0.4, 0.25)
FINEST = 0.5  # photograph pixels per view pixel
MAX_STRETCH = 0.2
MAX_TILT = 0.4
MAX_DISPARITY = 0.12  # of the width
MAX_BEND = 0.04  # of the longer side
PIECES = (0, 1, 2, 4)
SIDEWAYS_SHARE = 0.25
GRAY_SHARE = 0.25
# How strongly the light of the two views differs, and how often.
STRENGTHS = (0.3, 1.0, 2.0)
STRENGTH_SHARES = (0.4, 0.4, 0.2)
MARGIN_PX = 2.0


@dataclass(frozen=True, eq=False)
class Pair:
    """Two views of one scene and where the token centres of the first lie in the second.

    Attributes:
        view_a: RGB, shape (H, W, 3).
        view_b: RGB, shape (H, W, 3).
        points_a: token centres (x, y) in pixels, row by row, shape (N, 2).
        points_b: the same scene points in the second view, shape (N, 2).
        visible: whether the point is seen in the second view, shape (N,).
    """

    view_a: Image
    view_b: Image
    points_a: Array
    points_b: Array
    visible: Array

    def zoom(self) -> float:
        """How many times larger the second view shows the scene."""
        steps = [
            np.linalg.norm(np.diff(points, axis=0), axis=1)
            for points in (self.points_b, self.points_a)
        ]
        return float(np.median(steps[0] / steps[1]))


def pyramid(photograph: Image, levels: int = 3) -> list[Image]:
    """Halve a photograph repeatedly, so that a small view is read without aliasing."""
    images = [photograph]
    while len(images) < levels:
        height, width = images[-1].shape[:2]
        half = (max(width // 2, 1), max(height // 2, 1))
        images.append(cv2.resize(images[-1], half, interpolation=cv2.INTER_AREA))
    return images


def with_pattern(rng: np.random.Generator, photograph: Image, other: Image) -> Image:
    """Lay a board of one repeated tile over most of a photograph.

    The tile is a piece of the other photograph, or a square of a chessboard. What lies around the
    board is all that tells its tiles apart.
    """
    height, width = photograph.shape[:2]
    side = int(rng.integers(20, 80))
    if rng.random() < 0.4:
        dark, light = rng.integers(0, 90, 3), rng.integers(150, 256, 3)
        tile = np.where(np.kron([[0, 1], [1, 0]], np.ones((side, side)))[..., None], light, dark)
    else:
        y, x = (int(rng.integers(max(n - side, 1))) for n in other.shape[:2])
        tile = other[y : y + side, x : x + side]
        if rng.random() < 0.5:
            tile = np.concatenate([tile, tile[:, ::-1]], 1)
    rows, columns = height // tile.shape[0] + 1, width // tile.shape[1] + 1
    board = np.tile(tile, (rows, columns, 1))[:height, :width].astype(np.uint8)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inset = rng.uniform(0.02, 0.3, (4, 2)) * [width, height] * [[1, 1], [-1, 1], [-1, -1], [1, -1]]
    placed = cv2.getPerspectiveTransform(corners, (corners + inset).astype(np.float32))
    flat = [cv2.warpPerspective(image, placed, (width, height)) for image in (board, board * 0 + 1)]
    return np.where(flat[1] > 0, flat[0], photograph)


def patterned(photographs: Sequence[Image], count: int, seed: int = 0) -> list[Image]:
    """Make photographs with a board of repeated tiles in them."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(photographs), size=2) for _ in range(count))
    return [with_pattern(rng, photographs[a], photographs[b]) for a, b in drawn]


def token_centres(size: tuple[int, int], cell: int) -> Array:
    """Return the centres (x, y) of the tokens of an image, row by row, shape (N, 2)."""
    y, x = np.mgrid[0 : size[0] // cell, 0 : size[1] // cell]
    return np.stack([x.ravel(), y.ravel()], -1) * float(cell) + (cell - 1) / 2


def project(homography: Array, points: Array) -> Array:
    """Map points (x, y), shape (N, 2), through a homography."""
    mapped: Array = np.c_[points, np.ones(len(points))] @ homography.T
    flat: Array = mapped[:, :2] / np.maximum(mapped[:, 2:], 1e-6)
    return flat


def translation(x: float, y: float) -> Array:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def window(
    rng: np.random.Generator, centre: Array, scale: float, turn: float, size: tuple[int, int]
) -> Array:
    """Draw a homography from pixels of a view to pixels of a photograph.

    Args:
        rng: source of the stretch and the tilt.
        centre: the photograph's pixel (x, y) that the view's centre shows.
        scale: photograph pixels per view pixel.
        turn: rotation in radians.
        size: (height, width) of the view.
    """
    stretch = np.exp(rng.uniform(-MAX_STRETCH, MAX_STRETCH))
    cos, sin = np.cos(turn), np.sin(turn)
    shape = np.array([[cos, -sin], [sin, cos]]) @ np.diag([scale * stretch, scale / stretch])
    middle = np.eye(3)
    middle[:2, :2] = shape
    middle[2, :2] = rng.uniform(-MAX_TILT, MAX_TILT, 2) / np.array([size[1], size[0]])
    height, width = size
    return translation(*centre) @ middle @ translation(-(width - 1) / 2, -(height - 1) / 2)


def render(
    levels: Sequence[Image],
    homography: Array,
    size: tuple[int, int],
    bend: Array | None = None,
) -> Image:
    """Read a view of a photograph from the pyramid level that fits the view's scale.

    Args:
        levels: the photograph's pyramid.
        homography: from pixels of the view to pixels of the photograph.
        size: (height, width) of the view.
        bend: (x, y) that is added to every pixel of the view before, shape (H, W, 2).
    """
    height, width = size
    corners = np.array([[0, 0], [width, 0], [0, height]], float)
    moved = project(homography, corners)
    sides = np.linalg.norm(moved[1:] - moved[0], axis=1) / np.array([width, height])
    level = int(np.clip(np.floor(np.log2(max(sides.max(), 1e-3)) + 0.3), 0, len(levels) - 1))
    factor = 0.5**level
    to_level = np.diag([factor, factor, 1.0])
    to_level[:2, 2] = (factor - 1) / 2
    if bend is None:
        return cv2.warpPerspective(
            levels[level],
            to_level @ homography,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    pixels = token_centres(size, 1) + bend.reshape(-1, 2)
    at = project(to_level @ homography, pixels).reshape(height, width, 2).astype(np.float32)
    return cv2.remap(levels[level], at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def draw_bend(rng: np.random.Generator, size: tuple[int, int], sideways: bool) -> Array:
    """Draw a smooth field of displacements in pixels, shape (H, W, 2); sideways has no y."""
    knots = rng.normal(0, 0.5, (int(rng.integers(3, 7)), int(rng.integers(3, 7)), 2))
    if sideways:
        knots[..., 1] = 0
    field = cv2.resize(knots, size[::-1], interpolation=cv2.INTER_CUBIC)
    bent: Array = (rng.uniform(0, MAX_BEND) * max(size) * field).astype(np.float32)
    return bent


def unbend(bend: Array, points: Array) -> Array:
    """Find where points (x, y) are seen in a bent view: q with q + bend(q) = point."""
    found = points
    for _ in range(10):
        x, y = found.astype(np.float32).T[:, :, None]
        here = cv2.remap(bend, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found = points - here.reshape(-1, 2)
    return found


def draw_blobs(rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """Draw one to three filled ellipses or polygons, 1 inside, shape (H, W)."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    for _ in range(rng.integers(1, 4)):
        at = rng.uniform(0, 1, 2) * [width, height]
        radii = rng.uniform(0.06, 0.3, 2) * min(size)
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 14)))
        outline = at + np.stack([np.cos(angles), np.sin(angles)], -1) * radii
        cv2.fillPoly(mask, [outline.round().astype(np.int32)], 1)
    return mask


def cut_out(rng: np.random.Generator, piece: Image) -> Image:
    """Draw which part of a picture is a thing in front, 1 inside, shape (H, W).

    Half of the time these are blobs, else what is brighter or darker there than elsewhere, so
    that the outline is one that the picture itself has.
    """
    height, width = piece.shape[:2]
    if rng.random() < 0.5:
        return draw_blobs(rng, (height, width))
    smooth = cv2.GaussianBlur(piece.mean(-1), (0, 0), rng.uniform(1, 5))
    smooth *= rng.choice([-1, 1])
    threshold = np.quantile(smooth, rng.uniform(0.5, 0.9))
    return np.asarray(smooth > threshold, dtype=np.uint8)


def relight(rng: np.random.Generator, view: Image, strength: float) -> Image:
    """Change a view's light and colour, by a strength in [0, 2], its sharpness and its noise."""
    height, width = view.shape[:2]
    light = (view.astype(np.float32) / 255) ** np.exp(strength * rng.uniform(-0.45, 0.45))
    light = light * (1 + strength * rng.uniform(-0.15, 0.15, 3).astype(np.float32))
    light = (light - 0.5) * np.exp(strength * rng.uniform(-0.35, 0.25)) + 0.5
    light = light + strength * rng.uniform(-0.1, 0.1)
    if rng.random() < 0.3 * strength:  # a shadow or a glow across the view
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        slope = rng.normal(0, 1, 2)
        ramp = np.tanh(rng.uniform(0.5, 6) * (slope[0] * x + slope[1] * y + rng.normal(0, 0.5)))
        light = light * (1 + rng.uniform(-0.35, 0.35) * ramp[..., None])
    if rng.random() < 0.3 * strength:  # lamps and shadows here and there
        knots = rng.normal(0, 0.25, (4, 4))
        field = cv2.resize(knots, (width, height), interpolation=cv2.INTER_CUBIC)
        light = light * np.exp(strength * field)[..., None]
    if rng.random() < 0.05 * strength:
        light = np.repeat(light.mean(-1, keepdims=True), 3, axis=-1)
    light = np.ascontiguousarray(light, dtype=np.float32)
    if rng.random() < 0.3:
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.4, 1.4))
    light = light + rng.normal(0, 1, light.shape) * rng.uniform(0, 0.04) * (rng.random() < 0.7)
    pixels = np.clip(light * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
        pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR)
    return np.asarray(pixels, dtype=np.uint8)


def without_colour(view: Image) -> Image:
    gray = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)


def draw_pair(
    rng: np.random.Generator,
    photographs: Sequence[Sequence[Image]],
    size: tuple[int, int],
    cell: int,
) -> Pair:
    """Draw two views of a random photograph, preferring those that show something.

    Args:
        rng: source of every draw.
        photographs: one pyramid per photograph.
        size: (height, width) of both views.
        cell: pixels per token.
    """
    for _ in range(3):  # a plain wall teaches little
        pair = _draw(rng, photographs, size, cell)
        if pair.view_a.std((0, 1)).mean() > 20 and pair.visible.sum() > 64:
            break
    return pair


def _draw(
    rng: np.random.Generator,
    photographs: Sequence[Sequence[Image]],
    size: tuple[int, int],
    cell: int,
) -> Pair:
    levels = photographs[int(rng.integers(len(photographs)))]
    height, width = levels[0].shape[:2]
    centre = np.array([rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height])
    turn = rng.normal(0, 0.15)
    sideways = rng.random() < SIDEWAYS_SHARE
    scale, other_scale = draw_scales(rng, min(height, width) / max(size) * 1.1, sideways)
    window_a = window(rng, centre, scale, turn, size)
    if sideways:
        window_b = window_a @ draw_sideways(rng, size)
    else:
        turn_b = turn + rng.uniform(-1, 1) * rng.choice(TURNS, p=TURN_SHARES)
        step = rng.uniform(-0.25, 0.25, 2) * min(scale, other_scale) * np.array(size[::-1])
        window_b = window(rng, centre + step, other_scale, turn_b, size)
    bend = draw_bend(rng, size, sideways) if rng.random() < 0.5 else None
    a_to_b = np.linalg.inv(window_b) @ window_a
    view_a, view_b = render(levels, window_a, size), render(levels, window_b, size, bend)

    points_a = token_centres(size, cell)
    points_b = project(a_to_b, points_a)
    if bend is not None:
        points_b = unbend(bend, points_b)
    visible: Array = is_within(project(window_a, points_a), 0, (height, width))
    for _ in range(rng.choice(PIECES)):
        # A piece of the same photograph is the harder one to tell from what it hides.
        same = rng.random() < 0.4
        other = levels if same else photographs[int(rng.integers(len(photographs)))]
        middle = np.array(other[0].shape[1::-1]) * rng.uniform(0.3, 0.7, 2)
        front_a = window(rng, middle, np.exp(rng.uniform(-0.6, 0.8)), rng.normal(0, 0.5), size)
        reach = np.array([MAX_DISPARITY, 0.005 if sideways else MAX_DISPARITY]) * size[::-1]
        front_a_to_b = translation(*rng.uniform(-reach, reach)) @ a_to_b
        piece_a = render(other, front_a, size)
        piece_b = render(other, front_a @ np.linalg.inv(front_a_to_b), size)
        mask_a = cut_out(rng, piece_a)
        mask_b = cv2.warpPerspective(mask_a, front_a_to_b, size[::-1], flags=cv2.INTER_NEAREST)
        view_a = np.where(mask_a[..., None] > 0, piece_a, view_a)
        view_b = np.where(mask_b[..., None] > 0, piece_b, view_b)
        in_front = at_pixels(mask_a, points_a) > 0
        points_b = np.where(in_front[:, None], project(front_a_to_b, points_a), points_b)
        visible = in_front | (visible & (at_pixels(mask_b, points_b) == 0))
    visible = np.logical_and(visible, is_within(points_b, MARGIN_PX, size))
    strength = rng.choice(STRENGTHS, p=STRENGTH_SHARES)
    view_a, view_b = relight(rng, view_a, strength), relight(rng, view_b, strength)
    if rng.random() < GRAY_SHARE:
        view_a, view_b = without_colour(view_a), without_colour(view_b)
    return Pair(view_a, view_b, points_a, points_b, visible)


def draw_scales(
    rng: np.random.Generator, coarsest: float, same: bool = False
) -> tuple[float, float]:
    """Draw the scales of two views, in photograph pixels per view pixel.

    Args:
        rng: source of every draw.
        coarsest: the scale at which a view shows the whole photograph.
        same: whether both views have one scale.
    """
    finest, coarsest = np.log(FINEST), np.log(max(coarsest, FINEST))
    zoom = 0.0 if same else rng.uniform(-1, 1) * rng.choice(ZOOMS, p=ZOOM_SHARES)
    zoom = np.clip(zoom, finest - coarsest, coarsest - finest)
    middle = (finest + coarsest) / 2
    middle += rng.uniform(-0.5, 0.5) * (coarsest - finest - abs(zoom))
    return float(np.exp(middle - zoom / 2)), float(np.exp(middle + zoom / 2))


def draw_sideways(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """Draw a homography that moves a view sideways over a receding plane, as a stereo camera does.

    The disparity changes along x and y; y itself stays, but for half a per cent.
    """
    width_height = np.array(size[::-1])
    ground = np.eye(3)
    ground[0, :2] += rng.uniform(-0.12, 0.12, 2)
    # The centre stays where it is under the slant, then moves by the disparity.
    ground[0, 2] = -ground[0, :2] @ (width_height / 2) + width_height[0] / 2
    shift = rng.uniform(-1, 1, 2) * width_height * [MAX_DISPARITY, 0.005]
    return ground @ translation(*shift)


def is_within(points: Array, margin_px: float, size: tuple[int, int]) -> Array:
    """Tell which points (x, y) lie in an image of (height, width), and off its edge by a margin."""
    limit = np.array(size[::-1]) - 1 - margin_px
    inside: Array = np.logical_and(points >= margin_px, points <= limit)
    return np.asarray(inside.all(1))


def at_pixels(image: Image, points: Array) -> Image:
    """Read an image at the pixels nearest to points (x, y); outside, at its edge."""
    limit = np.array(image.shape[1::-1]) - 1
    x, y = np.clip(points.round(), 0, limit).astype(int).T
    return np.asarray(image[y, x])


def as_tensor(views: Sequence[Image]) -> Tensor:
    """Stack views into the network's range [-1, 1], shape (B, 3, H, W)."""
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 127.5 - 1
