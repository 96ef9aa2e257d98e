from __future__ import annotations

import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from kornia_ditf import match
from kornia_ditf.adapters.opencv import (
    OpenCVFeature,
    to_dmatches,
    to_image_features,
    to_keypoints,
    to_opencv,
)
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError

DATA = Path(__file__).parents[2] / "examples" / "data"

Pictures = list[npt.NDArray[Any]]


def rgb(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def test_descriptors_are_those_of_the_direct_call(nano: DiTF, bgr: Pictures) -> None:
    keypoints, descriptors = OpenCVFeature(nano).detectAndCompute(bgr[0], None)
    maps = nano(rgb(bgr[0]))
    np.testing.assert_array_equal(cv2.KeyPoint.convert(keypoints), maps.centres().numpy())
    expected = torch.nn.functional.normalize(maps.tokens[0], dim=-1).numpy()
    np.testing.assert_allclose(descriptors, expected, atol=1e-6)
    assert descriptors is not None
    assert descriptors.dtype == np.float32 and descriptors.flags.c_contiguous


def test_keypoints_of_anyone_are_described(nano: DiTF, bgr: Pictures) -> None:
    given = cv2.SIFT_create().detect(bgr[0], None)
    keypoints, descriptors = OpenCVFeature(nano).compute(bgr[0], given)
    assert isinstance(keypoints, tuple) and len(keypoints) == len(given) == len(descriptors)
    points = torch.from_numpy(cv2.KeyPoint.convert(given))[None]
    expected = nano(rgb(bgr[0])).at(points)[0].numpy()
    np.testing.assert_allclose(descriptors, expected, atol=1e-6)


def test_it_answers_what_sift_answers(nano: DiTF) -> None:
    feature, sift = OpenCVFeature(nano), cv2.SIFT_create()
    assert feature.descriptorSize() == nano.width
    assert feature.descriptorType() == sift.descriptorType() == cv2.CV_32F
    assert feature.defaultNorm() == sift.defaultNorm() == cv2.NORM_L2
    assert feature.empty() is False and feature.getDefaultName() == "Feature2D.DiTF"
    assert not isinstance(feature, cv2.Feature2D)


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (7, 40, 3), (5, 5, 4)])
def test_nothing_is_found_in_images_of_next_to_nothing(shape: tuple[int, ...], nano: DiTF) -> None:
    image = np.zeros(shape, np.uint8)
    assert OpenCVFeature(nano).detectAndCompute(image, None) == ((), None)
    assert cv2.SIFT_create().detect(image, None) == ()


@pytest.mark.parametrize("form", ["grey", "grey with an axis", "BGR", "BGRA", "UMat", "a view"])
def test_every_form_of_image_that_sift_takes_is_taken(form: str, nano: DiTF, bgr: Pictures) -> None:
    image = bgr[0]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    noise = np.random.default_rng(0).integers(0, 255, (128, 160, 1), np.uint8)
    given, seen = {
        "grey": (grey, grey),
        "grey with an axis": (grey[..., None], grey),
        "BGR": (image, rgb(image)),
        "BGRA": (np.concatenate([image, noise], 2), rgb(image)),
        "UMat": (cv2.UMat(image), rgb(image)),
        "a view": (image[::2, ::-1], np.ascontiguousarray(rgb(image)[::2, ::-1])),
    }[form]
    assert cv2.SIFT_create().detectAndCompute(given, None)[1] is not None or form == "a view"
    _, descriptors = OpenCVFeature(nano).detectAndCompute(given, None)
    expected = torch.nn.functional.normalize(nano(seen).tokens[0], dim=-1).numpy()
    np.testing.assert_allclose(descriptors, expected, atol=1e-6)
    for detector in ("sift", "orb"):
        assert OpenCVFeature(nano, detector=detector).detectAndCompute(given, None)[1] is not None


def test_nothing_found_is_what_sift_says_of_it(nano: DiTF, bgr: Pictures) -> None:
    blank, nowhere = np.zeros((64, 64), np.uint8), np.zeros((128, 160), np.uint8)
    sift, feature = cv2.SIFT_create(), OpenCVFeature(nano)
    cases: list[Any] = [
        lambda f: f.detectAndCompute(bgr[0], nowhere),
        lambda f: f.detect(bgr[0], nowhere),
        lambda f: f.compute(bgr[0], ()),
        lambda f: f.compute(bgr[0], []),
        lambda f: f.detectAndCompute(bgr[0], None, None, True),
        lambda f: f.detectAndCompute(bgr[0], None, useProvidedKeypoints=True),
    ]
    for case in cases:
        assert case(feature) == case(sift)
    assert OpenCVFeature(nano, detector=sift).detectAndCompute(blank, None) == ((), None)


@pytest.mark.parametrize("detector", [None, "sift", cv2.ORB_create(50)])
def test_a_mask_is_honoured(detector: Any, nano: DiTF, bgr: Pictures) -> None:
    mask = np.zeros((128, 160), np.uint8)
    mask[30:100, 40:120] = 255
    keypoints, descriptors = OpenCVFeature(nano, detector=detector).detectAndCompute(bgr[0], mask)
    x, y = cv2.KeyPoint.convert(keypoints).T
    assert len(x) and descriptors is not None and len(descriptors) == len(x)
    assert 39.5 <= x.min() and x.max() < 120 and 29.5 <= y.min() and y.max() < 100  # noqa: SIM300


def test_detect_and_compute_in_turn_describe_the_image_once(nano: DiTF, bgr: Pictures) -> None:
    feature, calls = OpenCVFeature(nano), []
    hook = nano.register_forward_hook(lambda *_: calls.append(1))
    try:
        keypoints = feature.detect(bgr[0])
        _, first = feature.compute(bgr[0], keypoints)
        assert len(calls) == 1
        _, second = feature.compute(bgr[1], keypoints)
    finally:
        hook.remove()
    assert len(calls) == 2 and np.abs(first - second).max() > 0.01


def test_several_images_are_taken_as_opencv_takes_them(nano: DiTF, bgr: Pictures) -> None:
    feature = OpenCVFeature(nano)
    keypoints = feature.detect(bgr)
    found, descriptors = feature.compute(bgr, keypoints)
    assert len(keypoints) == len(found) == 2
    np.testing.assert_array_equal(descriptors[1], feature.detectAndCompute(bgr[1])[1])


def test_brute_force_finds_the_direct_calls_matches(nano: DiTF, bgr: Pictures) -> None:
    feature = OpenCVFeature(nano)
    (kps_a, desc_a), (kps_b, desc_b) = (feature.detectAndCompute(i, None) for i in bgr)
    found = cv2.BFMatcher(feature.defaultNorm(), crossCheck=True).match(desc_a, desc_b)
    direct = match(nano(rgb(bgr[0])), nano(rgb(bgr[1])))
    rows = {(*kps_a[m.queryIdx].pt, *kps_b[m.trainIdx].pt) for m in found}
    expected = {
        (*a, *b) for a, b in zip(direct.points_a.tolist(), direct.points_b.tolist(), strict=False)
    }
    # L2 of unit vectors orders as the cosine does, but where two are equal up to rounding.
    assert len(rows & expected) >= 0.98 * len(expected) > 0


def test_flann_homographies_and_drawings_take_the_results(nano: DiTF, bgr: Pictures) -> None:
    feature = OpenCVFeature(nano)
    moved = cv2.warpAffine(bgr[0], np.float32([[1, 0, 8], [0, 1, 4]]), (160, 128))
    (kps_a, desc_a), (kps_b, desc_b) = (feature.detectAndCompute(i, None) for i in (bgr[0], moved))
    flann = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 64})
    good = [m for m, n in flann.knnMatch(desc_a, desc_b, k=2) if m.distance < 0.9 * n.distance]
    source = np.float32([kps_a[m.queryIdx].pt for m in good])
    target = np.float32([kps_b[m.trainIdx].pt for m in good])
    homography, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 4.0)
    centre = homography @ [80, 64, 1]
    assert np.abs(centre[:2] / centre[2] - [88, 68]).max() < 3
    drawn = cv2.drawMatches(
        bgr[0], kps_a, moved, kps_b, good, None, matchesMask=inliers.ravel().tolist()
    )
    assert drawn.shape == (128, 320, 3)


def test_the_matchers_of_stitching_take_the_features(nano: DiTF, bgr: Pictures) -> None:
    feature = OpenCVFeature(nano)
    features = [
        to_image_features(image.shape[:2], *feature.detectAndCompute(image, None), index)
        for index, image in enumerate([bgr[0], bgr[0]])
    ]
    matcher = cv2.detail.BestOf2NearestMatcher(False, 0.3)
    info = matcher.apply(features[0], features[1])
    matcher.collectGarbage()
    np.testing.assert_allclose(info.H, np.eye(3), atol=1e-3)
    assert info.num_inliers > 100


def test_direct_matches_become_opencvs_types(nano: DiTF, bgr: Pictures) -> None:
    matches = match(nano(rgb(bgr[0])), nano(rgb(bgr[1]))).best(20)
    kps_a, kps_b, pairs = to_opencv(matches, size=4)
    np.testing.assert_array_equal(cv2.KeyPoint.convert(kps_b), matches.points_b.numpy())
    assert [(m.queryIdx, m.trainIdx) for m in pairs] == [(i, i) for i in range(20)]
    np.testing.assert_allclose([1 - m.distance for m in pairs], matches.scores, atol=1e-6)
    assert cv2.drawMatches(bgr[0], kps_a, bgr[1], kps_b, pairs, None).any()
    [pair] = to_dmatches([[3, 5]], [0.25])
    assert (pair.queryIdx, pair.trainIdx, pair.distance) == (3, 5, 0.25)
    assert to_dmatches([], []) == () == to_keypoints(np.zeros((0, 2)))


def test_options_reach_the_module() -> None:
    feature = OpenCVFeature("nano", block=3, timestep=40, treatment="raw", ensemble=2, dtype="fp16")
    config = feature.descriptor.config  # type: ignore[attr-defined]
    assert (config.block, config.timestep, config.treatment, config.ensemble) == (3, 40, "raw", 2)
    assert next(feature.descriptor.parameters()).dtype == torch.float16


def test_any_dense_descriptor_serves(conv: Any, bgr: Pictures) -> None:
    feature = OpenCVFeature(conv, max_keypoints=50)
    keypoints, descriptors = feature.detectAndCompute(bgr[0], None)
    assert descriptors is not None and descriptors.shape == (len(keypoints), 16)
    assert len(keypoints) <= 50 and feature.getDefaultName() == "Feature2D.Conv"


def test_a_position_with_several_orientations_is_one_keypoint(nano: DiTF, bgr: Pictures) -> None:
    keypoints = OpenCVFeature(nano, detector="sift").detect(bgr[0])
    found = {keypoint.pt for keypoint in keypoints}
    theirs = cv2.SIFT_create().detect(bgr[0], None)
    assert len(found) == len(keypoints) < len(theirs) and found == {k.pt for k in theirs}


def test_threads_receive_the_descriptors_of_their_own_image(conv: Any, bgr: Pictures) -> None:
    class Slow(OpenCVFeature):
        """Lets other threads run where the last map is stored."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            time.sleep(0.001)

    feature = Slow(conv)
    pictures = [np.ascontiguousarray(np.roll(bgr[0], 16 * shift, 1)) for shift in range(8)]
    expected = [OpenCVFeature(conv).detectAndCompute(picture)[1] for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: feature.detectAndCompute(pictures[i % 8])[1], range(160)))
    for index, descriptors in enumerate(found):
        np.testing.assert_array_equal(descriptors, expected[index % 8])


def test_the_usual_ratio_of_three_quarters_keeps_right_matches(bgr: Pictures) -> None:
    feature = OpenCVFeature("nano", detector="sift")
    moved = cv2.warpAffine(bgr[0], np.float32([[1, 0.05, 8], [-0.05, 1, 9]]), (160, 128))
    (kps_a, desc_a), (kps_b, desc_b) = (feature.detectAndCompute(i, None) for i in (bgr[0], moved))
    pairs = cv2.BFMatcher().knnMatch(desc_a, desc_b, k=2)
    good = [first for first, second in pairs if first.distance < 0.75 * second.distance]
    source = np.float32([kps_a[m.queryIdx].pt for m in good])
    target = np.float32([kps_b[m.trainIdx].pt for m in good])
    expected = source @ np.float32([[1, -0.05], [0.05, 1]]) + np.float32([8, 9])
    assert len(good) > 50
    assert np.mean(np.linalg.norm(expected - target, axis=1) < 4) > 0.9


def test_a_numpy_matrix_is_an_image_like_any_array(conv: Any, bgr: Pictures) -> None:
    grey = cv2.cvtColor(bgr[0], cv2.COLOR_BGR2GRAY)
    expected = OpenCVFeature(conv).detectAndCompute(grey)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.asmatrix(grey)
    np.testing.assert_array_equal(OpenCVFeature(conv).detectAndCompute(matrix)[1], expected)


WRONG: dict[str, tuple[Any, str]] = {
    "no file": (lambda f, i: f.detectAndCompute(None, None), "cv2.imread found no such file"),
    "floats": (lambda f, i: f.detect(i / 255), "image must be a uint8 array.*float64"),
    "2 channels": (lambda f, i: f.detect(i[..., :2]), "got .128, 160, 2"),
    "mask": (lambda f, i: f.detect(i, np.ones((3, 3), np.uint8)), "mask must have the shape"),
    "detector": (lambda f, i: OpenCVFeature(f.descriptor, detector="shift"), "named 'shift'"),
    "no detector": (lambda f, i: OpenCVFeature(f.descriptor, detector=3), "must have OpenCV's"),
    "options": (lambda f, i: OpenCVFeature(f.descriptor, block=3), "block cannot be applied"),
}


@pytest.mark.parametrize("mistake", list(WRONG))
def test_a_mistake_is_named(mistake: str, conv: Any, bgr: Pictures) -> None:
    make, message = WRONG[mistake]
    with pytest.raises(InvalidArgumentError, match=message):
        make(OpenCVFeature(conv), bgr[0])


def test_large_keypoints_are_read_from_smaller_copies_of_the_image() -> None:
    photograph = cv2.imread(str(DATA / "motorcycle_a.jpg"))
    half = cv2.resize(photograph, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    # Whole in the frame, as a photograph from twice the distance shows it.
    far = np.zeros_like(photograph)
    far[: half.shape[0], : half.shape[1]] = half

    def right(multiscale: bool) -> int:
        feature = OpenCVFeature("nano", detector="sift", multiscale=multiscale, long_side=224)
        (keypoints_a, a), (keypoints_b, b) = (
            feature.detectAndCompute(image, None) for image in (photograph, far)
        )
        found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a, b, k=2)
        good = [first for first, second in found if first.distance < 0.75 * second.distance]
        places = cv2.KeyPoint.convert(keypoints_a) / 2
        errors = [np.linalg.norm(places[m.queryIdx] - keypoints_b[m.trainIdx].pt) for m in good]
        return sum(error < 8 for error in errors)

    assert right(True) >= 3 * max(1, right(False))


def test_several_scales_are_the_default_with_sift_alone() -> None:
    chosen = {name: OpenCVFeature("nano", detector=name).multiscale for name in ("sift", "orb")}
    assert chosen == {"sift": True, "orb": False}
    assert OpenCVFeature("nano", detector=cv2.SIFT.create()).multiscale
