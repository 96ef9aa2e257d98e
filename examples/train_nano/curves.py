"""Measure matching of photographs that were turned, or shown larger and smaller.

Each photograph is matched with itself turned or scaled about its centre, under other light and
noise. For dense descriptors the share of grid queries that are matched within 8 pixels is measured
(PCK@8); for these and for OpenCV's detectors, as its users run them, the share of photographs whose
homography is found (mean corner error at most 10 pixels), and how precise the right matches are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
from describers import BASELINE, Describe, DescribeImage, rootsift
from measure import corner_error, match_pair, table
from pairs import TestPair, queries_of, relit, shrink, skimage_data, sklearn_images
from photographs import read_rgb
from views import Array, Image, project, translation

import kornia_ditf as kd

TURNS = (-90, -60, -45, -30, -15, 0, 15, 30, 45, 60, 90)
SCALES = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
CANVAS_PX = 480
RIGHT_PX = 8
SOLVED_PX = 10.0
RATIO = 0.75

Match = Callable[[Image, Image], tuple[Array, Array]]


def unseen_photographs() -> dict[str, Image]:
    """Read photographs of scikit-image and scikit-learn, which trained and chose nothing."""
    paths = [skimage_data() / f"{name}.png" for name in ("astronaut", "coffee", "chelsea")]
    paths += [skimage_data() / "rocket.jpg"]
    paths += [sklearn_images() / f"{name}.jpg" for name in ("china", "flower")]
    return {path.stem: read_rgb(path) for path in paths}


def moved(photograph: Image, turn_deg: float, scale: float) -> TestPair:
    """Pair a photograph with itself turned and scaled about its centre, on an equal canvas."""
    factor = CANVAS_PX / max(photograph.shape[:2])
    image = shrink(photograph, *(round(n * factor) for n in photograph.shape[1::-1]))
    size = image.shape[1::-1]
    centre = (np.array(size) - 1) / 2
    cos, sin = scale * np.cos(np.deg2rad(turn_deg)), scale * np.sin(np.deg2rad(turn_deg))
    about = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    homography = translation(*centre) @ about @ translation(*-centre)
    # Blurred by what a reduction loses; `warpPerspective` alone would alias.
    blur = 0.5 * np.sqrt(max(scale**-2 - 1, 0))
    sharp = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
    shown = cv2.warpPerspective(sharp, homography, size, flags=cv2.INTER_CUBIC)
    truth = project(homography, queries_of(image))
    name = f"turned {turn_deg:g}, {scale:g} times"
    return TestPair(name, image, relit(shown, np.random.default_rng(0)), truth, homography)


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


def matchers(loaded: Mapping[str, DescribeImage], searching: kd.DiTF) -> dict[str, Match]:
    """Make what is compared by homographies; AKAZE where this OpenCV has it."""
    found = {
        "SIFT, ratio .75": match_detected(cv2.SIFT.create(), RATIO),
        "ORB, mutual": match_detected(cv2.ORB.create(), None),
    }
    if hasattr(cv2, "AKAZE"):
        found["AKAZE, mutual"] = match_detected(cv2.AKAZE.create(), None)
    found[BASELINE] = match_dense(rootsift)
    found["nano, with search"] = match_searching(searching)
    return found | {name: match_nano(ditf) for name, ditf in loaded.items()}


def pck_curve(
    photographs: Mapping[str, Image], motions: Sequence[tuple[float, float]], describe: Describe
) -> Array:
    """Match every photograph at every (turn, scale); return the mean PCK@8 of each in per cent."""
    found = []
    for image in photographs.values():
        pairs = [replace(moved(image, *motion), homography=None) for motion in motions]
        found.append([match_pair(pair, describe).share(RIGHT_PX, mutual=False) for pair in pairs])
    return 100 * np.mean(found, 0)


def homography_errors(pair: TestPair, match: Match) -> tuple[float, float]:
    """Return the corner error of the homography, and the median error of the right matches.

    A match is right within RIGHT_PX; the median is NaN where none is.
    """
    a, b = match(pair.image_a, pair.image_b)
    distance = np.linalg.norm(project(pair.homography, a) - b, axis=1)
    right = distance[distance <= RIGHT_PX]
    return corner_error(a, b, pair), float(np.median(right)) if len(right) else np.nan


def curve_tables(
    photographs: Mapping[str, Image],
    dense: Mapping[str, Describe],
    loaded: Mapping[str, DescribeImage],
    searching: kd.DiTF,
    track: Callable[[str, int], Callable[[], None]],
) -> str:
    """Match along both curves; return the tables."""
    parts = []
    for title, motions, labels in (
        ("turned by, degrees", [(turn, 1.0) for turn in TURNS], TURNS),
        ("shown larger, times", [(0.0, scale) for scale in SCALES], SCALES),
    ):
        compared = matchers(loaded, searching)
        advance = track(title, len(dense) + len(compared))
        shares, solved, precision = {}, {}, {}
        for name, describe in dense.items():
            share = pck_curve(photographs, motions, describe)
            shares[name] = [f"{value:.0f}" for value in (*share, share.mean())]
            advance()
        for name, match in compared.items():
            found = [
                [homography_errors(moved(image, *m), match) for m in motions]
                for image in photographs.values()
            ]
            corners, apart = np.moveaxis(found, -1, 0)
            share = 100 * (corners <= SOLVED_PX).mean(0)
            solved[name] = [f"{value:.0f}" for value in (*share, share.mean())]
            precision[name] = [f"{value:.2f}" for value in np.nanmedian(apart, 0)]
            advance()
        head = [f"{label:g}" for label in labels]
        parts += [
            table([f"PCK@{RIGHT_PX}, %; {title}", *head, "mean"], shares),
            table([f"homographies found, %; {title}", *head, "mean"], solved),
            table([f"median error of right matches, px; {title}", *head], precision),
        ]
    return "\n".join(parts)
