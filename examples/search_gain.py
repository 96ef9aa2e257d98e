"""What verified search is worth: photographs warped by known turns and scales, matched again.

    python examples/search_gain.py [--warps 92x2.9,...] [--long-side 336] [PHOTOGRAPH ...]

Each warp is a turn in degrees and a scale, with a slight perspective, other light and noise. A warp
is solved where the homography's mean error over what both images show is below 5 pixels.
"""

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"
WARPS = "0x1,30x1,60x1,90x1,135x1,180x1,0x.5,0x.3,0x2,0x3,90x.4,45x.4,92x2.9,180x2"


def read(path):
    image = cv2.imread(str(path))[..., ::-1]
    small = 640 / max(image.shape[:2])
    return np.ascontiguousarray(
        cv2.resize(image, None, fx=small, fy=small, interpolation=cv2.INTER_AREA)
    )


def warp(image, turn, scale, generator):
    """Turn an image clockwise and scale it, and say how its pixels map there."""
    height, width = image.shape[:2]
    side = 640 if scale >= 1 else int(np.hypot(height, width) * scale)
    centre = (width / 2, height / 2)
    matrix = np.vstack([cv2.getRotationMatrix2D(centre, -turn, scale), [0, 0, 1]])
    matrix[:2, 2] += side / 2 - np.array(centre)
    corners = np.float32([[0, 0], [side, 0], [side, side], [0, side]])
    moved = corners + generator.uniform(-0.05, 0.05, (4, 2)).astype(np.float32) * side
    matrix = cv2.getPerspectiveTransform(corners, moved) @ matrix
    blurred = image if scale >= 1 else cv2.GaussianBlur(image, (0, 0), 0.4 / scale)
    light = cv2.warpPerspective(blurred, matrix, (side, side), flags=cv2.INTER_CUBIC) / 255
    light = light ** generator.uniform(0.7, 1.4) * generator.uniform(0.7, 1)
    light = light + generator.normal(0, 0.012, light.shape)
    return np.uint8(255 * light.clip(0, 1)), matrix


def error(found, truth, image, warped):
    """Return the mean distance between two homographies where both images show something."""
    if found is None:
        return np.inf
    height, width = image.shape[:2]
    points = np.stack(np.meshgrid(np.linspace(0, width - 1, 24), np.linspace(0, height - 1, 24)), 2)
    expected, got = (
        cv2.perspectiveTransform(points.reshape(1, -1, 2), np.asarray(matrix))[0]
        for matrix in (truth, found)
    )
    shown = ((expected >= 0) & (expected < warped.shape[1::-1])).all(1)
    return np.linalg.norm(expected - got, axis=1)[shown].mean()


def sift(image, warped):
    """Match SIFT with a ratio of 0.8, as OpenCV's tutorials do."""
    finder = cv2.SIFT_create()
    (ours, a), (theirs, b) = (finder.detectAndCompute(each, None) for each in (image, warped))
    if b is None or len(theirs) < 2:
        return None
    pairs = [m for m, n in cv2.BFMatcher().knnMatch(a, b, k=2) if m.distance < 0.8 * n.distance]
    if len(pairs) < 4:
        return None
    points_a = np.float64([ours[m.queryIdx].pt for m in pairs])
    points_b = np.float64([theirs[m.trainIdx].pt for m in pairs])
    return cv2.findHomography(points_a, points_b, cv2.USAC_MAGSAC, 3.0, None, 10_000, 0.999)[0]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photographs", nargs="*", default=[DATA / "graffiti_a.jpg"])
parser.add_argument("--warps", default=WARPS)
parser.add_argument("--long-side", type=int, default=336, help="in pixels, of images for nano")
arguments = parser.parse_args()
ditf = kd.create_descriptor("nano", long_side=arguments.long_side)
images = [read(path) for path in arguments.photographs]
kd.match_images(images[0], images[0], ditf)  # warm up
print("| rotation, scale | SIFT solved | no search | search | median error | tried | cost |")
print("|---|---|---|---|---|---|---|")
for name in arguments.warps.split(","):
    turn, scale = map(float, name.split("x"))
    errors, costs, tried = [], [], []
    for index, image in enumerate(images):
        warped, truth = warp(image, turn, scale, np.random.default_rng(index))
        start = time.process_time()
        plain = kd.match_images(image, warped, ditf, search="none")
        middle = time.process_time()
        found = kd.match_images(image, warped, ditf)
        costs.append((time.process_time() - middle) / (middle - start))
        tried.append(len(found.attempts))
        matrices = [sift(image, warped), plain.verification.matrix, found.verification.matrix]
        errors.append([error(matrix, truth, image, warped) for matrix in matrices])
    solved = (np.array(errors) < 5).sum(0)
    print(
        f"| {turn:g}, {scale:g} | {solved[0]} | {solved[1]} | {solved[2]} of {len(images)} "
        f"| {statistics.median(e[2] for e in errors):.1f} px | {statistics.median(tried):g} "
        f"| {statistics.median(costs):.2f} |",
        flush=True,
    )
