"""The pose between two calibrated views, from matches, as published evaluations estimate it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.metrics.pose import normalise, rotation_error, translation_error
from kornia_ditf.protocols.fitting import fitted_size
from kornia_ditf.protocols.protocol import PoseEstimation, Protocol
from kornia_ditf.utils.extras import import_extra

Floats = npt.NDArray[np.float64]

_NEEDED = 5
_FAR = 1e9


class Pose(NamedTuple):
    """A pose that was found: rotation (3, 3), and translation (3,) of length 1."""

    rotation: Floats
    translation: Floats


def estimate_pose(
    points_a: Floats,
    points_b: Floats,
    cameras: tuple[Floats, Floats],
    threshold: float,
    estimation: PoseEstimation,
) -> Pose | None:
    """Estimate the pose that takes points of camera A to camera B.

    Args:
        points_a: (x, y) in pixels of A, shape (K, 2).
        points_b: (x, y) in pixels of B, shape (K, 2).
        cameras: calibration matrices, shape (3, 3) each.
        threshold: largest distance of an inlier to its epipolar line, in pixels.
        estimation: how.

    Returns:
        the pose; None where fewer than five points match, or nothing fits.

    Raises:
        MissingExtraError: the estimator is not installed.
    """
    if len(points_a) < _NEEDED:
        return None
    estimate = _estimate_poselib if estimation.estimator == "poselib" else _estimate_cv2
    return estimate(points_a, points_b, cameras, threshold, estimation)


def pose_errors(points_a: Any, points_b: Any, pair: Pair, protocol: Protocol) -> dict[str, float]:
    """Estimate a pair's pose at each threshold of a protocol and measure its errors.

    Thresholds are pixels of the images as the protocol fits them; points are as in `estimate_pose`.

    Returns:
        for each threshold `pose_error@<threshold>`, the larger of the two angles in degrees,
        infinite where none was found; and `rotation_error@...` and `translation_error@...`.
    """
    assert protocol.pose is not None and pair.camera_a is not None
    assert pair.camera_b is not None and pair.pose is not None
    a, b = (np.asarray(points, np.float64).reshape(-1, 2) for points in (points_a, points_b))
    cameras = (pair.camera_a.numpy(), pair.camera_b.numpy())
    true, found = pair.pose.numpy(), {}
    shrunk = np.mean(
        [max(fitted_size(size, protocol.fit)) / max(size) for size in (pair.size_a, pair.size_b)]
    )
    for threshold in protocol.pose.thresholds:
        pose = estimate_pose(a, b, cameras, threshold / float(shrunk), protocol.pose)
        turned = moved = float("inf")
        if pose is not None:
            turned = rotation_error(pose.rotation, true[:3, :3])
            moved = translation_error(pose.translation, true[:3, 3])
        found[f"pose_error@{threshold:g}"] = max(turned, moved)
        found[f"rotation_error@{threshold:g}"] = turned
        found[f"translation_error@{threshold:g}"] = moved
    return found


def _estimate_cv2(
    a: Floats, b: Floats, cameras: tuple[Floats, Floats], threshold: float, how: PoseEstimation
) -> Pose | None:
    """`estimate_pose` of SuperGlue and LoFTR."""
    import cv2

    first, second = cameras
    focal = np.mean([first[0, 0], second[1, 1], first[0, 0], second[1, 1]])  # as they have it
    a, b = normalise(a, first), normalise(b, second)
    method = cv2.USAC_MAGSAC if how.estimator == "cv2-magsac" else cv2.RANSAC
    eye: Any = np.eye(3)
    try:
        essential, mask = cv2.findEssentialMat(
            a, b, eye, threshold=threshold / float(focal), prob=how.confidence, method=method
        )
    except cv2.error:  # all points in one place
        return None
    if essential is None or not np.isfinite(essential).all():
        return None
    best, found = 0, None
    for each in essential.reshape(-1, 3, 3):
        count, rotation, moved, *_ = cv2.recoverPose(each, a, b, eye, _FAR, mask=mask)
        if count > best:
            best, shift = count, np.asarray(moved, np.float64)[:, 0]
            found = Pose(np.asarray(rotation, np.float64), shift)
    return found


def _estimate_poselib(
    a: Floats, b: Floats, cameras: tuple[Floats, Floats], threshold: float, how: PoseEstimation
) -> Pose | None:
    """`PoseLibRelativePoseEstimator` of glue-factory."""
    purpose = "pose.estimator 'poselib' needs PoseLib"
    poselib = import_extra("poselib", purpose, "kornia-ditf[poselib]")
    calibrations = [
        {
            "model": "PINHOLE",
            "width": int(2 * camera[0, 2]) + 1,
            "height": int(2 * camera[1, 2]) + 1,
            "params": [camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2]],
        }
        for camera in cameras
    ]
    options = {"max_epipolar_error": threshold, "success_prob": how.confidence, "seed": 0}
    pose, report = poselib.estimate_relative_pose(a, b, *calibrations, options)
    if not any(report["inliers"]) or not np.isfinite(pose.t).all():
        return None
    return Pose(np.asarray(pose.R), np.asarray(pose.t))
