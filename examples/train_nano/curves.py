"""Measure matching of photographs that were turned, or shown larger and smaller.

    python examples/train_nano/curves.py --data DIR --weights FOLDER

Each photograph is matched with itself turned or scaled about its centre on an equal canvas, under
other light and noise. Two tables per curve: the share of grid queries that dense descriptors match
within 8 pixels (PCK@8), and the share of photographs whose homography was found, by dense
descriptors and by OpenCV's detectors as its users run them. `--held-out` uses the photographs that
training left out, to choose weights by; without it, photographs that chose nothing either.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from describers import Describe, load_nano, nano, rootsift
from evaluate import BASELINE, corner_error, match_pair, table
from pairs import TestPair, queries_of, relit, skimage_data, sklearn_images
from photographs import read_rgb, split
from rich.progress import Progress
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


def moved(name: str, photograph: Image, turn_deg: float, scale: float, seed: int = 0) -> TestPair:
    """Pair a photograph with itself turned and scaled about its centre, on an equal canvas."""
    factor = CANVAS_PX / max(photograph.shape[:2])
    size = tuple(round(n * factor) for n in photograph.shape[1::-1])
    image = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    centre = (np.array(size) - 1) / 2
    cos, sin = scale * np.cos(np.deg2rad(turn_deg)), scale * np.sin(np.deg2rad(turn_deg))
    homography = translation(*centre) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    homography = homography @ translation(*-centre)
    # Blurred by what the reduction loses; `warpPerspective` alone would alias.
    blur = 0.5 * np.sqrt(max(scale**-2 - 1, 0))
    sharp = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
    shown = cv2.warpPerspective(sharp, homography, size, flags=cv2.INTER_CUBIC)
    shown = relit(shown, np.random.default_rng(seed))
    return TestPair(name, image, shown, project(homography, queries_of(image)), homography)


def match_dense(describe: Describe) -> Match:
    """Match the mutually nearest points of an 8-pixel grid."""

    def match(image_a: Image, image_b: Image) -> tuple[Array, Array]:
        points = queries_of(image_a), queries_of(image_b)
        a, b = (describe(x, at) for x, at in zip((image_a, image_b), points, strict=True))
        pairs, _ = kd.mutual_nearest(a, b)
        return points[0][pairs[:, 0]], points[1][pairs[:, 1]]

    return match


def match_nano(ditf: kd.DiTF) -> Match:
    """Match every token, with the points of the second image refined between tokens."""

    def match(image_a: Image, image_b: Image) -> tuple[Array, Array]:
        maps = ditf(image_a), ditf(image_b)
        found = kd.refine(kd.match(*maps), *maps)
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


def matchers(ditf: kd.DiTF) -> dict[str, Match]:
    """Make all that is compared by homographies. AKAZE is shown where OpenCV has it."""
    found = {
        "SIFT, ratio .75": match_detected(cv2.SIFT.create(), RATIO),
        "ORB, mutual": match_detected(cv2.ORB.create(), None),
    }
    if hasattr(cv2, "AKAZE"):
        found["AKAZE, ratio .75"] = match_detected(cv2.AKAZE.create(), RATIO)
    return {**found, BASELINE: match_dense(rootsift), "nano": match_nano(ditf)}


def curve(
    photographs: Mapping[str, Image],
    motions: Sequence[tuple[float, float]],
    dense: Mapping[str, Describe],
    compared: Mapping[str, Match],
    advance: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Match every photograph at every (turn, scale).

    Returns:
        for each dense descriptor PCK@8 in [0, 1], shape (photographs, motions); for each matcher
        the homography's mean corner error in pixels, same shape, and the same shape of the median
        distance to the truth of the matches that are right, NaN where there are none.
    """
    shape = (len(photographs), len(motions))
    shares = {name: np.zeros(shape) for name in dense}
    corners = {name: np.zeros(shape) for name in compared}
    apart = {name: np.full(shape, np.nan) for name in compared}
    for row, (name, photograph) in enumerate(photographs.items()):
        for column, motion in enumerate(motions):
            pair = moved(name, photograph, *motion, seed=row)
            for key, describe in dense.items():
                outcome = match_pair(replace(pair, homography=None), describe)
                shares[key][row, column] = outcome.share(RIGHT_PX, mutual=False)
            for key, match in compared.items():
                a, b = match(pair.image_a, pair.image_b)
                corners[key][row, column] = corner_error(a, b, pair)
                distance = np.linalg.norm(project(pair.homography, a) - b, axis=1)
                if (distance <= RIGHT_PX).any():
                    apart[key][row, column] = np.median(distance[distance <= RIGHT_PX])
            advance()
    return shares, corners, apart


def report(
    photographs: Mapping[str, Image], ditf: kd.DiTF, dense_only: bool, threads: int = 1
) -> str:
    """Match along both curves; return the tables."""
    cv2.setNumThreads(threads)
    dense: dict[str, Describe] = {BASELINE: rootsift, "nano": nano(ditf)}
    compared = {} if dense_only else matchers(ditf)
    parts = []
    steps = [("turned by, degrees", [(turn, 1.0) for turn in TURNS], TURNS)]
    steps += [("shown larger, times", [(0.0, scale) for scale in SCALES], SCALES)]
    with Progress() as progress:
        task = progress.add_task("pairs", total=len(photographs) * sum(len(m) for _, m, _ in steps))
        for title, motions, labels in steps:
            head = [f"{label:g}" for label in labels]
            shares, corners, apart = curve(
                photographs, motions, dense, compared, lambda: progress.advance(task)
            )
            found = {
                f"PCK@{RIGHT_PX}, %": {k: 100 * v.mean(0) for k, v in shares.items()},
                "homographies found, %": {
                    k: 100 * (v <= SOLVED_PX).mean(0) for k, v in corners.items()
                },
            }
            for kind, rows in found.items():
                cells = {k: [f"{x:.0f}" for x in (*v, v.mean())] for k, v in rows.items()}
                parts.append(table([f"{kind}; {title}", *head, "mean"], cells))
            rows = {k: [f"{x:.2f}" for x in np.nanmedian(v, 0)] for k, v in apart.items()}
            parts.append(table([f"median error of right matches, px; {title}", *head], rows))
    return "\n".join(part for part in parts if part.count("\n") > 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true", help="use what training left out")
    parser.add_argument("--dense-only", action="store_true", help="show PCK alone")
    parser.add_argument("--block", type=int, default=5)
    parser.add_argument("--timestep", type=float, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if options.held_out:
        photographs = {str(i): image for i, image in enumerate(split(options.data)[1])}
    else:
        photographs = unseen_photographs()
    ditf = load_nano(options.weights, options.block, options.timestep)
    print(report(photographs, ditf, options.dense_only))


if __name__ == "__main__":
    main()
