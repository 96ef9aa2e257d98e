"""Errors of two-view poses, and of matches against them, by SuperGlue's arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kornia_ditf.metrics.accumulate import HomographyAccuracy

Floats = npt.NDArray[np.float64]


def rotation_error(found: Floats, true: Floats) -> float:
    """Measure the angle between two rotations in degrees.

    Args:
        found: shape (3, 3).
        true: shape (3, 3).

    Example:
        >>> turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> rotation_error(turn, np.eye(3))
        90.0
    """
    cosine = np.clip((np.trace(np.dot(found.T, true)) - 1) / 2, -1.0, 1.0)
    return float(np.rad2deg(np.abs(np.arccos(cosine))))


def translation_error(found: Floats, true: Floats) -> float:
    """Measure the angle between two translations in degrees, in [0, 90].

    An essential matrix does not tell the sign, so a translation and its opposite are alike.

    Args:
        found: shape (3,).
        true: shape (3,).

    Returns:
        the angle; 90 where a translation is zero.

    Example:
        >>> translation_error(np.array([0.0, 0.0, -2.0]), np.array([0.0, 0.0, 1.0]))
        0.0
    """
    length = np.linalg.norm(found) * np.linalg.norm(true)
    if not length:
        return 90.0
    angle = np.rad2deg(np.arccos(np.clip(np.dot(found, true) / length, -1.0, 1.0)))
    return float(np.minimum(angle, 180 - angle))


def epipolar_distances(
    points_a: Any, points_b: Any, camera_a: Any, camera_b: Any, pose: Any
) -> Floats:
    """Measure how far matches are from a pose: squared symmetric distances to epipolar lines.

    In camera coordinates, that is, in units of the focal length.

    Args:
        points_a: (x, y) in pixels of A, shape (K, 2).
        points_b: (x, y) in pixels of B, shape (K, 2).
        camera_a: calibration matrix of A, shape (3, 3).
        camera_b: calibration matrix of B, shape (3, 3).
        pose: takes points of camera A to camera B, shape (4, 4).

    Returns:
        shape (K,).
    """
    a, b = _calibrated(points_a, camera_a), _calibrated(points_b, camera_b)
    essential = essential_of(np.asarray(pose, np.float64))
    lines_b, lines_a = a @ essential.T, b @ essential
    product = np.sum(b * lines_b, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = product**2 * (
            1.0 / (lines_b[:, 0] ** 2 + lines_b[:, 1] ** 2)
            + 1.0 / (lines_a[:, 0] ** 2 + lines_a[:, 1] ** 2)
        )
    return np.asarray(np.nan_to_num(distances, nan=np.inf))  # a point on the epipole has no line


def essential_of(pose: Floats) -> Floats:
    """Return the essential matrix [t]x R of a pose, shape (3, 3)."""
    x, y, z = pose[:3, 3]
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pose[:3, :3]


def normalise(points: Any, camera: Any) -> Floats:
    """Convert pixels, shape (K, 2), to camera coordinates, as SuperGlue does (without skew)."""
    pixels, matrix = _as_array(points), _as_array(camera)
    return (pixels - matrix[[0, 1], [2, 2]][None]) / matrix[[0, 1], [0, 1]][None]


def _calibrated(points: Any, camera: Any) -> Floats:
    flat = normalise(points, camera)
    return np.concatenate([flat, np.ones_like(flat[:, :1])], axis=-1)


def _as_array(values: Any) -> Floats:
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return np.asarray(values, np.float64)


class PoseAccuracy(HomographyAccuracy):
    """Accuracy and AUC of pose errors.

    Args:
        thresholds: in degrees.
    """

    definition = (
        "Pose error: the larger of the angles, in degrees, between the rotations and between the "
        "directions of the translations; infinite where no pose was found. AUC@t: the area under "
        "the curve of the share of pairs with an error <= e over e from 0 to t, divided by t, as "
        "in SuperGlue's evaluation. Precision: for each pair the share of its matches whose "
        "squared symmetric distance to the true epipolar lines, in units of the focal length, is "
        "below the protocol's (0 for a pair without matches); the mean over pairs."
    )

    def __init__(self, thresholds: tuple[float, ...] = (5, 10, 20)) -> None:
        super().__init__(thresholds)
