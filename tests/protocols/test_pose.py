"""Poses estimated from matches, and the scores that protocols give them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from kornia_ditf import Matches, Pair, evaluate_matches, find_protocol, load_dataset
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.protocols.pose import estimate_pose
from kornia_ditf.protocols.protocol import Fit, PoseEstimation


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("posed")
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KORNIA_DITF_CACHE", str(folder / "cache"))
        return load_dataset("synthetic", folder, split="pose", points=80)[0]  # type: ignore[no-any-return]


def superglue_estimate(a: np.ndarray, b: np.ndarray, k0: np.ndarray, k1: np.ndarray, thresh: float):
    """models/utils.py of SuperGlue: estimate_pose."""
    f_mean = np.mean([k0[0, 0], k1[1, 1], k0[0, 0], k1[1, 1]])
    a = (a - k0[[0, 1], [2, 2]][None]) / k0[[0, 1], [0, 1]][None]
    b = (b - k1[[0, 1], [2, 2]][None]) / k1[[0, 1], [0, 1]][None]
    found, mask = cv2.findEssentialMat(
        a, b, np.eye(3), threshold=thresh / f_mean, prob=0.99999, method=cv2.RANSAC
    )
    best, result = 0, None
    for each in np.split(found, len(found) // 3):
        n, rotation, moved, *_ = cv2.recoverPose(each, a, b, np.eye(3), 1e9, mask=mask)
        if n > best:
            best, result = n, (rotation, moved[:, 0])
    return result


def test_the_pose_is_superglues(pair: Pair) -> None:
    noise = np.random.default_rng(1).standard_normal((80, 2)) * 0.2
    a, b = pair.points_a.numpy(), pair.points_b.numpy() + noise
    camera = pair.camera_a.numpy()
    rotation, moved = superglue_estimate(a, b, camera, camera, 1.0)
    found = estimate_pose(a, b, (camera, camera), 1.0, PoseEstimation())
    assert np.array_equal(found.rotation, rotation)
    assert np.array_equal(found.translation, moved)


def test_of_several_solutions_of_five_matches_the_same_is_taken(pair: Pair) -> None:
    camera = pair.camera_a.numpy()
    for seed in range(40):
        generator = np.random.default_rng(seed)
        a = generator.uniform(0, 48, (5, 2))
        b = a + generator.normal(0, 4, (5, 2))
        try:
            expected = superglue_estimate(a, b, camera, camera, 1.0)
        except (AttributeError, TypeError):  # no essential matrix: SuperGlue's script ends
            expected = None
        found = estimate_pose(a, b, (camera, camera), 1.0, PoseEstimation())
        assert (found is None) == (expected is None)
        if found is not None:
            assert np.array_equal(found.rotation, expected[0])
            assert np.array_equal(found.translation, expected[1])


@pytest.mark.parametrize("estimator", ["cv2", "cv2-magsac", "poselib"])
def test_right_matches_give_the_pose_and_wrong_ones_lower_the_precision(
    pair: Pair, estimator: str
) -> None:
    count = len(pair.points_a)
    wrong = torch.from_numpy(np.random.default_rng(2).uniform(0, 48, (2, count // 4, 2)))
    matches = Matches(
        torch.cat([pair.points_a, wrong[0]]),
        torch.cat([pair.points_b, wrong[1]]),
        torch.ones(count + count // 4),
    )
    protocol = find_protocol("plain-pose")
    protocol = replace(protocol, pose=PoseEstimation(estimator=estimator))
    result = evaluate_matches(matches, pair, protocol)
    assert result.scores["pose_error@0.5"] < 4  # of images of 64 x 48 pixels
    assert set(result.scores) >= {"pose_error@3", "rotation_error@3", "translation_error@3"}
    assert bool(result.hits[0, :count].all())
    assert 0.7 < float(result.hits.double().mean()) < 0.9
    # The truth lies on the epipolar line, where right matches are already.
    assert torch.allclose(result.truth[:count], result.predicted[:count], atol=1e-6)


def test_too_few_matches_or_matches_of_one_place_give_no_pose(pair: Pair) -> None:
    for some in (pair.points_a[:4], pair.points_a[:1].expand(9, 2)):
        matches = Matches(some, some, torch.ones(len(some)))
        result = evaluate_matches(matches, pair, find_protocol("plain-pose"))
        assert set(result.scores.values()) <= {float("inf")} or len(some) == 9
        assert len(result.distances) == len(some)
    nothing = Matches(torch.empty(0, 2), torch.empty(0, 2), torch.empty(0))
    result = evaluate_matches(nothing, pair, find_protocol("plain-pose"))
    assert result.hits.shape == (1, 0) and result.scores["pose_error@1"] == float("inf")


def test_thresholds_are_pixels_of_the_fitted_image(pair: Pair) -> None:
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((80, 2)))
    matches = Matches(pair.points_a, pair.points_b + noise, torch.ones(80))
    half = find_protocol("plain-pose")
    half = replace(half, fit=Fit(kind="long-side", side=32, upright=False))
    scaled = replace(find_protocol("plain-pose"), pose=PoseEstimation(thresholds=(1.0, 2.0)))
    at_half = evaluate_matches(matches, pair, replace(half, pose=PoseEstimation(thresholds=(0.5,))))
    whole = evaluate_matches(matches, pair, scaled)
    assert at_half.scores["pose_error@0.5"] == whole.scores["pose_error@1"]


def test_keypoints_move_as_the_nearest_match_does(pair: Pair) -> None:
    plain = replace(find_protocol("plain"), alphas=(0.02,))
    exact = Matches(pair.points_a, pair.points_b, torch.ones(len(pair.points_a)))
    assert bool(evaluate_matches(exact, pair, plain).hits.all())
    one = Matches(pair.points_a[:1], pair.points_b[:1], torch.ones(1))
    found = evaluate_matches(one, pair, plain)
    shift = pair.points_b[0] - pair.points_a[0]
    assert torch.allclose(found.predicted, pair.points_a + shift)
    none = evaluate_matches(Matches(*(torch.empty(0, 2),) * 2, torch.empty(0)), pair, plain)
    assert not none.hits.any() and bool(none.distances.isinf().all())


def test_a_pair_without_a_pose_and_wrong_settings_are_named(pair: Pair) -> None:
    flat = replace(pair, pose=None)
    matches = Matches(pair.points_a, pair.points_b, torch.ones(80))
    with pytest.raises(InvalidArgumentError, match="has no pose, which plain-pose needs"):
        evaluate_matches(matches, flat, find_protocol("plain-pose"))
    with pytest.raises(InvalidArgumentError, match=r"pose\.estimator must be one of"):
        PoseEstimation(estimator="opencv")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"pose\.thresholds must all be above 0"):
        PoseEstimation(thresholds=(0.0,))
    with pytest.raises(InvalidArgumentError, match="belongs to the task 'pose'"):
        replace(find_protocol("plain-pose"), pose=None)


def test_a_descriptor_is_scored_by_its_refined_tokens(pair: Pair) -> None:
    from kornia_ditf import evaluate_pair
    from kornia_ditf.types import DescriptorMap, Frame

    data = torch.randn(1, 8, 6, 8, generator=torch.Generator().manual_seed(0))
    described = DescriptorMap(data, Frame(pair.size_a, pair.size_a))
    result = evaluate_pair(described, described, pair, find_protocol("plain-pose"))
    assert len(result.distances) == 48 and "pose_error@0.5" in result.scores
