"""Match two images: as users of OpenCV and Kornia do, by dense grids, and by nano."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import numpy as np
import torch
from describers import BASELINE, Describe, DescribeImage, rootsift
from kornia.feature import DescriptorMatcher, LocalFeatureMatcher, SIFTFeature
from pairs import queries_of
from views import Array, Image

import kornia_ditf as kd

RATIO = 0.75
KEYPOINT_PX, TOKEN_PX = 3.0, 8.0
KORNIA_FEATURES, KORNIA_RATIO = 2000, 0.9
SEARCHING = "nano, with search"
KORNIA = "Kornia's SIFT, mutual .9"

Match = Callable[[Image, Image], tuple[Array, Array]]


class Matcher(NamedTuple):
    """How images are matched, and how far from a homography its right matches may lie."""

    match: Match
    within_px: float


def match_dense(describe: Describe) -> Match:
    """Match the mutually nearest points of an 8-pixel grid."""

    def match(image_a: Image, image_b: Image) -> tuple[Array, Array]:
        points = queries_of(image_a), queries_of(image_b)
        a, b = (describe(x, at) for x, at in zip((image_a, image_b), points, strict=True))
        pairs, _ = kd.mutual_nearest(a, b)
        return points[0][pairs[:, 0]], points[1][pairs[:, 1]]

    return match


def match_nano(describe_image: DescribeImage) -> Match:
    """Match every token, with the points of the second image refined between tokens."""

    def match(image_a: Image, image_b: Image) -> tuple[Array, Array]:
        maps = describe_image(image_a), describe_image(image_b)
        found = kd.refine(kd.match(*maps), *maps)
        return found.points_a.numpy(), found.points_b.numpy()

    return match


def match_searching(ditf: kd.DiTF) -> Match:
    """Match as `kornia-ditf match` does by default, with a search over turns and scales."""

    def match(image_a: Image, image_b: Image) -> tuple[Array, Array]:
        found = kd.match_images(image_a, image_b, ditf).matches
        return found.points_a.numpy(), found.points_b.numpy()

    return match


def match_detected(feature: cv2.Feature2D, ratio: float | None) -> Match:
    """Match detected keypoints by the ratio test, or where none is given mutually."""
    norm = cv2.NORM_HAMMING if feature.defaultNorm() == cv2.NORM_HAMMING else cv2.NORM_L2
    matcher = cv2.BFMatcher(norm, crossCheck=ratio is None)

    def match(image_a: Image, image_b: Image) -> tuple[Array, Array]:
        (keys_a, a), (keys_b, b) = (
            feature.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
            for image in (image_a, image_b)
        )
        if a is None or b is None:
            return np.empty((0, 2)), np.empty((0, 2))
        if ratio is None:
            found = matcher.match(a, b)
        else:
            two = [pair for pair in matcher.knnMatch(a, b, k=2) if len(pair) == 2]
            found = [first for first, second in two if first.distance < ratio * second.distance]
        at = [(keys_a[m.queryIdx].pt, keys_b[m.trainIdx].pt) for m in found]
        points = np.array(at, dtype=np.float64).reshape(-1, 2, 2)
        return points[:, 0], points[:, 1]

    return match


def match_kornia() -> Match:
    """Match Kornia's own SIFT, its one matcher whose parts need no weights."""
    feature = SIFTFeature(KORNIA_FEATURES)
    matcher = LocalFeatureMatcher(feature, DescriptorMatcher("smnn", KORNIA_RATIO))

    def match(image_a: Image, image_b: Image) -> tuple[Array, Array]:
        gray = [
            torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).float()[None, None] / 255
            for image in (image_a, image_b)
        ]
        found = matcher({"image0": gray[0], "image1": gray[1]})
        return found["keypoints0"].double().numpy(), found["keypoints1"].double().numpy()

    return match


def matchers(loaded: Mapping[str, DescribeImage], searching: kd.DiTF) -> dict[str, Matcher]:
    """Make what is compared by homographies and poses; AKAZE where this OpenCV has it."""
    found = {
        "SIFT, ratio .75": Matcher(match_detected(cv2.SIFT.create(), RATIO), KEYPOINT_PX),
        "ORB, mutual": Matcher(match_detected(cv2.ORB.create(), None), KEYPOINT_PX),
    }
    if hasattr(cv2, "AKAZE"):
        akaze = match_detected(cv2.AKAZE.create(), None)
        found["AKAZE, mutual"] = Matcher(akaze, KEYPOINT_PX)
    found[BASELINE] = Matcher(match_dense(rootsift), TOKEN_PX)
    found |= {name: Matcher(match_nano(ditf), TOKEN_PX) for name, ditf in loaded.items()}
    return found | {SEARCHING: Matcher(match_searching(searching), TOKEN_PX)}
