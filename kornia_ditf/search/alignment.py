"""Subpixel alignment of matches: the pixels around each match are compared, not its tokens.

A descriptor says where a point lies to a fraction of a token. Once most matches agree on a
homography, image B is warped by it so that it looks like A, and Lucas and Kanade's method moves
each point to where the two images' pixels agree best: to about a tenth of a pixel.

Source: Lucas and Kanade (1981), with image pyramids as in Bouguet (2001); the check that a point
returns is Kalal, Mikolajczyk and Matas's forward-backward error (ICPR 2010).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_matches
from kornia_ditf.matching.verification import Verification, verify
from kornia_ditf.matching.views import View, similarity_at
from kornia_ditf.metrics.functional import project
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.types import Matches
from kornia_ditf.utils.checks import check_integer, check_number

_RETURN_PX = 0.7
"""How far from where it began a point may return to."""

_STRAY_PX = 1.5
"""How far from there a smaller square may be found: beside an edge of depth it is elsewhere."""

_LONG_SIDE = 2048
"""Larger images are aligned at this size, so that time and memory stay bounded."""

_CONTRAST_SIGMA = 8.0
"""Of the neighbourhood whose mean and contrast are taken out: light differs between images."""

_WINDOWS = (31, 21)
"""Sides in pixels of the squares by which inliers are aligned, one after the other."""

_Array = NDArray[Any]


def align_inliers(
    views: tuple[View, View], matches: Matches, verification: Verification, threshold: float
) -> tuple[Matches, Verification]:
    """Align the matches by the pixels around them, and the homography by those that could be.

    Args:
        views: the two images.
        matches: in pixels of the images.
        verification: their homography.
        threshold: largest error of its inliers, and the farthest that a point is moved, in pixels.
    """
    for window in _WINDOWS:  # the better homography of the first reaches more of them
        if verification.matrix is None or not bool(verification.inliers.any()):
            break
        matches, moved = align_matches(
            views[0].image,
            views[1].image,
            matches,
            verification.matrix,
            reach=threshold,
            window=window,
        )
        exact = verify(matches[moved], threshold=threshold / 4)
        if exact.matrix is None:
            break
        errors = project(exact.matrix, matches.points_a.cpu()) - matches.points_b.cpu()
        inliers = (errors.norm(dim=-1) <= threshold).to(matches.scores.device)
        if int(inliers.sum()) < 0.9 * int(verification.inliers.sum()):
            break
        verification = Verification("homography", exact.matrix, inliers, matches)
    return matches, verification


def align_matches(
    image_a: ImageLike,
    image_b: ImageLike,
    matches: Matches,
    homography: Tensor | None = None,
    *,
    reach: float = 16.0,
    window: int = 21,
) -> tuple[Matches, Tensor]:
    """Refine matches by aligning the pixels of image B with those around the points of A.

    Args:
        image_a: one image, as for `as_image`.
        image_b: the same for image B; its size may differ.
        matches: points in the pixels of the two images, shape (K, 2) each.
        homography: takes points of A roughly to B, shape (3, 3), such as
            `Verification.matrix`; None for images that differ by a small motion alone.
        reach: the farthest that a point is moved, in pixels of B, above 0.
        window: side in pixels of the square that is compared around a point, at least 5. A
            larger one is more exact on planes, a smaller one where depth changes.

    Returns:
        the matches with other points_b, and which of them were moved, bool, shape (K,). A point
        stays where it is if its surroundings have no texture or do not agree: if it would move
        farther than `reach`, does not return to its point of A when it is sought from B, or would
        move elsewhere with a third of the window, as beside an edge of depth.

    Raises:
        InvalidArgumentError: a wrong shape or number, or points that are not finite.
        ImageError: an image cannot be read.

    Example:
        >>> image = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24), size=192)
        >>> points = torch.tensor([[60.0, 60.0], [120.0, 99.0]])
        >>> rough = Matches(points, points + 3, torch.ones(2))
        >>> aligned, moved = align_matches(image, image, rough)
        >>> bool(moved.all()), bool((aligned.points_b - points).abs().max() < 0.05)
        (True, True)
    """
    check_number("reach", reach, "(0, inf]")
    check_integer("window", window, minimum=5)
    matrix = np.eye(3) if homography is None else homography.detach().cpu().double().numpy()
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not abs(np.linalg.det(matrix)):
        raise InvalidArgumentError("homography must be a finite, invertible matrix (3, 3)")
    check_matches(matches)
    pixels_a, zoom_a = _read(image_a)
    pixels_b, zoom_b = _read(image_b)
    if not len(matches):
        return matches, torch.zeros(0, dtype=torch.bool, device=matches.scores.device)
    resized = zoom_b @ matrix @ np.linalg.inv(zoom_a)
    a = _project(zoom_a, matches.points_a.detach().cpu().numpy())
    b = _project(zoom_b, matches.points_b.detach().cpu().numpy())
    found, moved = _align(pixels_a, pixels_b, a, b, resized, reach * zoom_b[0, 0], window)
    kept = torch.from_numpy(moved).to(matches.scores.device)
    there = torch.from_numpy(_project(np.linalg.inv(zoom_b), found)).to(matches.points_b)
    points = torch.where(kept[:, None], there, matches.points_b)
    return replace(matches, points_b=points), kept


def _align(
    pixels_a: _Array,
    pixels_b: _Array,
    a: _Array,
    b: _Array,
    matrix: _Array,
    reach: float,
    window: int,
) -> tuple[_Array, _Array]:
    """Return the aligned points of B, and which of them are."""
    import cv2

    size = pixels_a.shape[1::-1]
    scale = 1 / similarity_at(matrix, torch.from_numpy(a))[0]
    if not np.isfinite(scale) or scale < 1e-3:
        return b, np.zeros(len(a), bool)
    # The sharper image is blurred to the resolution of the other.
    blur = 0.5 * np.sqrt(max(scale, 1 / scale) ** 2 - 1)
    if blur > 0.1:
        blurred = cv2.GaussianBlur(pixels_b if scale > 1 else pixels_a, (0, 0), blur)
        pixels_a, pixels_b = (pixels_a, blurred) if scale > 1 else (blurred, pixels_b)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(pixels_b, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT)
    images = _flatten_light(pixels_a), _flatten_light(warped)
    start = _project(np.linalg.inv(matrix), b)
    radius = reach / scale
    usable: _Array = np.asarray((np.abs(start) < 1e6).all(1))  # which NaN is not
    levels = max(0, int(np.ceil(np.log2(max(1.0, 2 * radius / window)))))
    there, found = _track(*images, a, np.where(usable[:, None], start, a), levels, window)
    inner, seen = _track(*images, a, there, 0, max(5, window // 3 | 1))
    strays = seen & (np.linalg.norm(inner - there, axis=1) >= _STRAY_PX)
    back, returned = _track(*images[::-1], there, a, levels, window)
    moved = usable & found & returned & ~strays
    moved &= np.linalg.norm(back - a, axis=1) < _RETURN_PX
    moved &= np.linalg.norm(there - start, axis=1) <= radius
    return _project(matrix, there), moved


def _track(
    image: _Array, other: _Array, points: _Array, start: _Array, levels: int, window: int
) -> tuple[_Array, _Array]:
    import cv2

    found, status, _ = cv2.calcOpticalFlowPyrLK(
        image,
        other,
        np.ascontiguousarray(points[:, None], np.float32),
        np.ascontiguousarray(start[:, None], np.float32),
        winSize=(window, window),
        maxLevel=levels,
        criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return np.asarray(found[:, 0], np.float64), np.asarray(status[:, 0] == 1)


def _flatten_light(pixels: _Array) -> _Array:
    """Normalise the local mean and contrast of grey pixels, to uint8."""
    import cv2

    mean = cv2.GaussianBlur(pixels, (0, 0), _CONTRAST_SIGMA)
    variance = cv2.GaussianBlur((pixels - mean) ** 2, (0, 0), _CONTRAST_SIGMA)
    contrast = np.sqrt(np.maximum(variance, 0)) + 4  # grey levels; less than that is noise
    return np.asarray(((pixels - mean) * (40 / contrast) + 128).clip(0, 255).astype(np.uint8))


def _read(image: ImageLike) -> tuple[_Array, _Array]:
    """Return grey pixels in [0, 255], float32, and the matrix that took the image's to them."""
    import cv2

    batch = as_image(image)
    if len(batch) != 1:
        raise InvalidArgumentError(f"align one pair of images, got a batch of {len(batch)}")
    weights = batch.new_tensor([0.299, 0.587, 0.114])
    grey = torch.einsum("c,chw->hw", weights, batch[0].detach()).cpu().float().numpy() * 255
    zoom = min(1.0, _LONG_SIDE / max(grey.shape))
    if zoom == 1:
        return grey, np.eye(3)
    size = [max(1, round(side * zoom)) for side in grey.shape[::-1]]
    factors = np.array(size) / grey.shape[::-1]
    matrix = np.diag([*factors, 1.0])
    matrix[:2, 2] = (factors - 1) / 2  # pixel edges map linearly, and their centres with them
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA), matrix


def _project(matrix: _Array, points: _Array) -> _Array:
    import cv2

    return np.asarray(cv2.perspectiveTransform(points[None].astype(np.float64), matrix)[0])
