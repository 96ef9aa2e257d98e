"""Geometric verification of matches by OpenCV's MAGSAC++, Kornia's RANSAC or PoseLib."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_matches
from kornia_ditf.types import Matches
from kornia_ditf.utils.checks import check_integer, check_number, check_one_of
from kornia_ditf.utils.extras import import_extra

Geometry = Literal["homography", "fundamental", "essential"]
Estimator = Literal["cv2", "kornia", "poselib"]

_LEAST_MATCHES: dict[Geometry, int] = {"homography": 4, "fundamental": 8, "essential": 6}
"""One more than a minimal sample where that alone gives several answers and supports none."""

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """Geometry between two images, and the matches that agree with it.

    Args:
        geometry: `homography`, `fundamental` or `essential`.
        matrix: float64, shape (3, 3), or None where none was found. A homography takes points
            (x, y, 1) of A to B and ends in 1 where it can; for the others, of length 1,
            b^T @ matrix @ a = 0, in pixels, or for `essential` in camera coordinates.
        inliers: which matches agree with it, bool, shape (K,); none where there is no matrix.
        matches: the matches that were verified.
    """

    geometry: Geometry
    matrix: Tensor | None
    inliers: Tensor
    matches: Matches

    @property
    def inlier_matches(self) -> Matches:
        """The matches that agree with the geometry."""
        return self.matches[self.inliers]


def verify(
    matches: Matches,
    geometry: Geometry = "homography",
    *,
    estimator: Estimator = "cv2",
    threshold: float = 3.0,
    confidence: float = 0.999,
    max_iterations: int = 10_000,
    cameras: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> Verification:
    """Estimate the geometry between two images, and find the matches that agree with it.

    Args:
        matches: of one pair of images.
        geometry: `homography` (a plane, or a camera that only turned), `fundamental` (any rigid
            scene) or `essential` (the same with known cameras).
        estimator: `cv2` (USAC_MAGSAC), `kornia` (RANSAC) or `poselib`, an extra.
        threshold: the largest error of an inlier in pixels, above 0. Each library measures it in
            its own way: distance in image B for homographies in `cv2` and `kornia`, distance to
            the epipolar line or Sampson's for the others.
        confidence: in (0, 1), that no better sample was overlooked.
        max_iterations: of samples, at least 1.
        cameras: the calibration matrices of A and B, shape (3, 3) each; for `essential` only.
        seed: of the samples; the same seed gives the same result. `cv2` has none, and always
            gives the same.

    Returns:
        the matrix and the inliers; without a matrix where the matches are too few or agree on
        nothing.

    Raises:
        InvalidArgumentError: a wrong value or shape, or points that are not finite.
        MissingExtraError: `poselib` is not installed.

    Example:
        >>> a = 100 * torch.rand(50, 2)
        >>> found = verify(Matches(a, a + torch.tensor([7.0, -3.0]), torch.ones(50)))
        >>> found.matrix.round(decimals=3) + 0.0
        tensor([[ 1.,  0.,  7.],
                [ 0.,  1., -3.],
                [ 0.,  0.,  1.]], dtype=torch.float64)
        >>> int(found.inliers.sum())
        50
    """
    check_one_of("geometry", geometry, get_args(Geometry))
    check_one_of("estimator", estimator, get_args(Estimator))
    check_number("threshold", threshold, "(0, inf]")
    check_number("confidence", confidence, "(0, 1)")
    check_integer("max_iterations", max_iterations, 1)
    check_integer("seed", seed, 0)
    if (cameras is None) == (geometry == "essential"):
        raise InvalidArgumentError(
            "cameras, the calibration matrices of A and B, must be given for 'essential' only, "
            f"got {'none' if cameras is None else 'some'} for {geometry!r}"
        )
    check_matches(matches)
    a, b = (
        points.detach().cpu().double().numpy() for points in (matches.points_a, matches.points_b)
    )
    if cameras is not None:
        a, b, threshold = _calibrate(a, b, threshold, cameras)
    matrix, inliers = None, None
    if len(np.unique(np.c_[a, b], axis=0)) >= _LEAST_MATCHES[geometry]:
        task = _Task(a, b, geometry, threshold, confidence, max_iterations, seed)
        matrix, inliers = _ESTIMATORS[estimator](task)
    device = matches.scores.device
    if matrix is None or not np.isfinite(matrix).all() or not matrix.any():
        none = torch.zeros(len(a), dtype=torch.bool, device=device)
        return Verification(geometry, None, none, matches)
    usual = geometry == "homography" and abs(matrix[2, 2]) > 1e-12
    matrix = matrix / (matrix[2, 2] if usual else np.linalg.norm(matrix))
    kept = torch.from_numpy(np.asarray(inliers, dtype=bool).ravel()).to(device)
    return Verification(geometry, torch.from_numpy(matrix), kept, matches)


def _calibrate(
    a: _Array, b: _Array, threshold: float, cameras: tuple[Tensor, Tensor]
) -> tuple[_Array, _Array, float]:
    """Convert pixels, and the threshold, to camera coordinates."""
    points, focal_lengths = [], []
    for name, pixels, camera in zip("ab", (a, b), cameras, strict=True):
        matrix = torch.as_tensor(camera, dtype=torch.float64, device="cpu").numpy()
        if matrix.shape != (3, 3) or abs(np.linalg.det(matrix)) < 1e-12:
            raise InvalidArgumentError(
                f"the camera of {name} must be an invertible matrix (3, 3), got {matrix.tolist()}"
            )
        homogeneous = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(matrix).T
        points.append(homogeneous[:, :2] / homogeneous[:, 2:])
        focal_lengths += [abs(matrix[0, 0]), abs(matrix[1, 1])]
    return points[0], points[1], threshold / float(np.mean(focal_lengths))


@dataclass(frozen=True, slots=True)
class _Task:
    """What an estimator is asked: points (K, 2) of A and B, and how to sample them."""

    a: _Array
    b: _Array
    geometry: Geometry
    threshold: float
    confidence: float
    max_iterations: int
    seed: int


_Found = tuple[Any, Any]
"""A matrix or None, and which points agree with it."""


def _estimate_cv2(task: _Task) -> _Found:
    import cv2

    # Without a seed: USAC always draws the same samples.
    a, b, method, threshold = task.a, task.b, cv2.USAC_MAGSAC, task.threshold
    most, confidence = task.max_iterations, task.confidence
    try:
        if task.geometry == "homography":
            return cv2.findHomography(a, b, method, threshold, None, most, confidence)
        if task.geometry == "fundamental":
            return cv2.findFundamentalMat(a, b, method, threshold, confidence, most)
        return cv2.findEssentialMat(a, b, np.eye(3), method, confidence, threshold, most)
    except cv2.error:  # all points on one line
        return None, None


def _estimate_kornia(task: _Task) -> _Found:
    from kornia.geometry import RANSAC

    batch = min(2048, task.max_iterations)
    batches = -(-task.max_iterations // batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        ransac = RANSAC(task.geometry, task.threshold, batch, batches, task.confidence)
        matrix, inliers = ransac(torch.from_numpy(task.a), torch.from_numpy(task.b))
    return matrix.double().numpy(), inliers.numpy()


def _estimate_poselib(task: _Task) -> _Found:
    purpose = "estimator 'poselib' needs PoseLib"
    poselib = import_extra("poselib", purpose, "kornia-ditf[poselib]")
    options = {
        "max_reproj_error": task.threshold,
        "max_epipolar_error": task.threshold,
        "success_prob": task.confidence,
        "max_iterations": task.max_iterations,
        "min_iterations": min(1000, task.max_iterations),
        "seed": task.seed,
    }
    if task.geometry == "essential":
        camera = {"model": "PINHOLE", "width": 1, "height": 1, "params": [1.0, 1.0, 0.0, 0.0]}
        pose, report = poselib.estimate_relative_pose(task.a, task.b, camera, camera, options)
        x, y, z = pose.t
        return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pose.R, report["inliers"]
    estimate = getattr(poselib, f"estimate_{task.geometry}")
    matrix, report = estimate(task.a, task.b, options)
    return matrix, report["inliers"]


_ESTIMATORS: dict[Estimator, Callable[[_Task], _Found]] = {
    "cv2": _estimate_cv2,
    "kornia": _estimate_kornia,
    "poselib": _estimate_poselib,
}
