"""Pose errors and AUC against the published arithmetic, written out, and other libraries."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from kornia.geometry import epipolar
from scipy.spatial.transform import Rotation

from kornia_ditf.metrics.functional import area_under_curve
from kornia_ditf.metrics.pose import (
    PoseAccuracy,
    epipolar_distances,
    essential_of,
    rotation_error,
    translation_error,
)


def superglue_pose_error(pose: np.ndarray, rotation: np.ndarray, moved: np.ndarray) -> tuple:
    """models/utils.py of SuperGlue: compute_pose_error."""
    truth = pose[:3, 3]
    length = np.linalg.norm(moved) * np.linalg.norm(truth)
    angle = np.rad2deg(np.arccos(np.clip(np.dot(moved, truth) / length, -1.0, 1.0)))
    angle = np.minimum(angle, 180 - angle)
    cosine = np.clip((np.trace(np.dot(rotation.T, pose[:3, :3])) - 1) / 2, -1.0, 1.0)
    return angle, np.rad2deg(np.abs(np.arccos(cosine)))


def superglue_auc(errors: list[float], thresholds: list[float]) -> list[float]:
    """models/utils.py of SuperGlue: pose_auc; LoFTR's and glue-factory's are the same."""
    order = np.argsort(errors)
    sorted_errors = np.array(errors.copy())[order]
    recall = (np.arange(len(sorted_errors)) + 1) / len(sorted_errors)
    sorted_errors, recall = np.r_[0.0, sorted_errors], np.r_[0.0, recall]
    areas = []
    for t in thresholds:
        last = np.searchsorted(sorted_errors, t)
        r = np.r_[recall[:last], recall[last - 1]]
        e = np.r_[sorted_errors[:last], t]
        areas.append(np.trapezoid(r, x=e) / t)
    return areas


def superglue_epipolar(
    a: np.ndarray, b: np.ndarray, pose: np.ndarray, k0: np.ndarray, k1: np.ndarray
):
    """models/utils.py of SuperGlue: compute_epipolar_error."""
    a = (a - k0[[0, 1], [2, 2]][None]) / k0[[0, 1], [0, 1]][None]
    b = (b - k1[[0, 1], [2, 2]][None]) / k1[[0, 1], [0, 1]][None]
    a, b = (np.concatenate([p, np.ones_like(p[:, :1])], axis=-1) for p in (a, b))
    t0, t1, t2 = pose[:3, 3]
    skew = np.array([[0, -t2, t1], [t2, 0, -t0], [-t1, t0, 0]])
    matrix = skew @ pose[:3, :3]
    ep0 = a @ matrix.T
    product = np.sum(b * ep0, -1)
    etp1 = b @ matrix
    return product**2 * (
        1.0 / (ep0[:, 0] ** 2 + ep0[:, 1] ** 2) + 1.0 / (etp1[:, 0] ** 2 + etp1[:, 1] ** 2)
    )


@pytest.mark.parametrize("seed", range(4))
def test_errors_auc_and_precision_equal_the_published_arithmetic(seed: int) -> None:
    generator = np.random.default_rng(seed)
    errors = []
    for index in range(60):
        pose, scale = np.eye(4), 10.0 ** generator.uniform(-4, 0.5)
        rotation = cv2.Rodrigues(generator.standard_normal(3))[0]
        pose[:3, :3] = rotation @ cv2.Rodrigues(generator.standard_normal(3) * scale)[0]
        moved = generator.standard_normal(3)
        pose[:3, 3] = moved + scale * generator.standard_normal(3)
        expected = superglue_pose_error(pose, rotation, moved)
        found = translation_error(moved, pose[:3, 3]), rotation_error(rotation, pose[:3, :3])
        assert found == pytest.approx(expected, abs=1e-9, rel=0)
        errors.append(float("inf") if index % 11 == 0 else max(found))
        a, b = generator.uniform(0, 640, (2, 20, 2))
        cameras = [np.array([[500.0 + i, 0, 320], [0, 510, 240], [0, 0, 1]]) for i in (0, 9)]
        expected = superglue_epipolar(a, b, pose, *cameras)
        assert epipolar_distances(a, b, *cameras, pose) == pytest.approx(expected, rel=1e-12)
    accuracy = PoseAccuracy()
    for error in errors:
        accuracy.update(error)
    expected = superglue_auc(errors, [5, 10, 20])
    assert list(accuracy.compute().auc.values()) == pytest.approx(expected, abs=1e-9, rel=0)
    assert area_under_curve(errors, 20) == pytest.approx(expected[2], abs=1e-9, rel=0)


def test_errors_and_epipolar_distances_equal_those_of_kornia_and_scipy() -> None:
    generator = np.random.default_rng(7)
    pose, camera_a, camera_b = np.eye(4), np.diag([500.0, 480, 1]), np.diag([300.0, 310, 1])
    pose[:3, :3], pose[:3, 3] = Rotation.random(random_state=1).as_matrix(), [0.3, -1, 2]
    camera_a[:2, 2], camera_b[:2, 2] = (320, 240), (200, 180)
    a, b = generator.uniform(0, 400, (2, 50, 2))

    def batch(value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(value)[None]

    still, turned, moved = batch(np.eye(3)), batch(pose[:3, :3]), batch(pose[:3, 3:])
    essential = epipolar.essential_from_Rt(still, torch.zeros_like(moved), turned, moved)
    assert np.abs(essential[0].numpy() - essential_of(pose)).max() < 1e-12
    rays = [
        batch((points - camera[:2, 2]) / camera[[0, 1], [0, 1]])
        for points, camera in ((a, camera_a), (b, camera_b))
    ]
    theirs = epipolar.symmetrical_epipolar_distance(*rays, essential, squared=True)[0]
    assert epipolar_distances(a, b, camera_a, camera_b, pose) == pytest.approx(theirs, rel=1e-9)
    for degrees in (0.0, 1e-3, 5, 120, 180):
        more = Rotation.from_rotvec([0, degrees, 0], degrees=True).as_matrix()
        # An arc cosine near 1 has few digits: published code measures small angles so.
        close = pytest.approx(degrees, abs=1e-9 if 1 < degrees < 179 else 2e-6)
        assert rotation_error(pose[:3, :3] @ more, pose[:3, :3]) == close
        assert translation_error(more @ [0, 0, 3.0], np.array([0, 0, 1.0])) == pytest.approx(
            min(degrees, 180 - degrees), abs=2e-6
        )


def test_a_translation_and_its_opposite_are_alike_and_none_is_wrong() -> None:
    ahead = np.array([0.0, 0.0, 1.0])
    assert translation_error(-ahead, ahead) == 0
    assert translation_error(np.zeros(3), ahead) == 90


def test_a_match_on_the_epipole_is_no_right_match() -> None:
    camera, pose = np.eye(3), np.eye(4)
    pose[2, 3] = 1  # straight ahead: the epipole is the principal point
    assert np.isinf(epipolar_distances(np.zeros((1, 2)), np.zeros((1, 2)), camera, camera, pose))
