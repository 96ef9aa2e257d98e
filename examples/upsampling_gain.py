"""What upsamplers are worth: accuracy and the error at depth edges, on pairs with dense truth.

    python examples/upsampling_gain.py [--factor 4] [--long-side 336] [--data DATA]

Points of image A are found in image B by the highest cosine. PCK@.01 is the share within a
hundredth of the image's longest side; the boundary error is the median distance of points within 6
pixels of a jump in depth of at least 3 pixels. Intervals of 95 % are in parentheses (bootstrap over
points). DATA is a folder of OpenCV's examples (Debian's `opencv-doc`), for the pair aloe.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"
EDGE_PX, JUMP_PX, POINTS, DRAWS = 6, 3, 3000, 1000

parser = argparse.ArgumentParser()
parser.add_argument("--factor", type=float, default=4)
parser.add_argument("--long-side", type=int, default=336)
parser.add_argument("--data", type=Path)
parser.add_argument("--points", type=int, default=POINTS)
arguments = parser.parse_args()


def by_disparity(disparity):
    """Where every pixel of A lies in B, and which pixels are near a jump in depth."""
    disparity = disparity.astype(np.float32)
    height, width = disparity.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    truth = np.stack([x - disparity, y], -1)
    truth[(disparity <= 0) | (x < disparity)] = np.nan
    window = np.ones((2 * EDGE_PX + 1,) * 2)
    known = disparity > 0
    highest = cv2.dilate(np.where(known, disparity, -np.inf).astype(np.float32), window)
    lowest = cv2.erode(np.where(known, disparity, np.inf).astype(np.float32), window)
    return truth, highest - lowest > JUMP_PX


def by_homography(matrix, size):
    """The same for a plane, which has no edges in depth."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    points = np.stack([x, y], -1).reshape(-1, 1, 2)
    return cv2.perspectiveTransform(points, matrix).reshape(*size, 2), np.zeros(size, bool)


def shipped(name):
    return DATA / f"{name}_a.jpg", DATA / f"{name}_b.jpg"


def pairs():
    disparity = cv2.imread(str(DATA / "motorcycle_disparity.png"), cv2.IMREAD_UNCHANGED) / 16
    yield (
        "motorcycle",
        DATA / "motorcycle_a.jpg",
        DATA / "motorcycle_b.jpg",
        by_disparity(disparity),
    )
    matrix = np.array(json.loads((DATA / "graffiti.json").read_text())["homography_a_to_b"])
    size = cv2.imread(str(DATA / "graffiti_a.jpg")).shape[:2]
    yield "graffiti", *shipped("graffiti"), by_homography(matrix, size)
    if arguments.data is not None:
        disparity = cv2.imread(str(arguments.data / "aloeGT.png"), cv2.IMREAD_GRAYSCALE)
        yield "aloe", *(arguments.data / f"aloe{s}.jpg" for s in "LR"), by_disparity(disparity)


def draw(truth, mask, inside):
    """Draw points whose place in B is known and in the image."""
    height, width = inside
    within = (truth >= 0).all(-1) & (truth[..., 0] < width) & (truth[..., 1] < height)
    y, x = np.nonzero(mask & within)
    chosen = np.random.default_rng(0).permutation(len(x))[: arguments.points]
    return np.stack([x, y], 1)[chosen], truth[y[chosen], x[chosen]]


def interval(values, statistic):
    generator = np.random.default_rng(0)
    drawn = [statistic(generator.choice(values, len(values))) for _ in range(DRAWS)]
    return (
        f"{statistic(values):.2f} ({np.quantile(drawn, 0.025):.2f}-{np.quantile(drawn, 0.975):.2f})"
    )


def pck(errors, limit):
    return interval(errors, lambda each: 100 * np.mean(each <= limit))


print("| pair | upsample | tokens | PCK@.01, % | boundary error, px | CPU, s |")
print(6 * "|---" + "|")
factor = f"{arguments.factor:g}"
for name, path_a, path_b, (truth, edges) in pairs():
    images = [kd.read_image(path) for path in (path_a, path_b)]
    everywhere, near = (
        draw(truth, mask, images[1].shape[2:]) for mask in (np.ones_like(edges), edges)
    )
    for upsample in ("none", f"bilinear({factor})", f"joint_bilateral({factor})"):
        nano = kd.create_descriptor("nano", long_side=arguments.long_side, upsample=upsample)
        begin = time.process_time()
        a, b = (nano(image) for image in images)
        seconds = time.process_time() - begin
        target = kd.prepare_target(b)
        errors = []
        for points, expected in (everywhere, near):
            found = kd.match_points(a, torch.from_numpy(points).float(), target).points_b.numpy()
            errors.append(np.linalg.norm(found - expected, axis=1))
        limit = 0.01 * max(images[1].shape[2:])
        boundary = interval(errors[1], np.median) if len(errors[1]) else "no edges"
        cells = (name, upsample, f"{a.grid[1]} x {a.grid[0]}", pck(errors[0], limit), boundary)
        print(f"| {' | '.join(cells)} | {seconds:.1f} |", flush=True)
