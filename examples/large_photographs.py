"""What tiles and a closer look are worth: a large image and its warp by a planted homography.

    python examples/large_photographs.py [--zoom 2,4] [--tiles 2] [--long-side 336]

The image is a mosaic of the shipped photographs, where each point's place in the other is known.
Points are not aligned by pixels afterwards (`refined=False`), which a plane makes all but exact.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"
NAMES = ("graffiti_a", "motorcycle_a", "graffiti_b", "motorcycle_b")
MATRIX = np.array([[1.02, 0.06, -40], [-0.05, 0.98, 60], [2e-5, -1e-5, 1]])


def mosaic(size):
    """Put photographs side by side; the second row is mirrored, so that no part is there twice."""
    photographs = [cv2.resize(cv2.imread(str(DATA / f"{name}.jpg")), size) for name in NAMES]
    photographs[2:] = [cv2.flip(each, -1) for each in photographs[2:]]
    return np.vstack([np.hstack(photographs[:2]), np.hstack(photographs[2:])])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoom", default="2,4")
    parser.add_argument("--tiles", default="2")
    parser.add_argument("--side", type=int, default=640, help="width of each photograph in pixels")
    parser.add_argument("--long-side", type=int, default=336, help="in pixels, of images for nano")
    arguments = parser.parse_args()
    image_a = mosaic((arguments.side, arguments.side * 4 // 5))
    size = image_a.shape[1::-1]
    image_b = cv2.warpPerspective(image_a, MATRIX, size, flags=cv2.INTER_CUBIC)
    images = [np.ascontiguousarray(each[..., ::-1]) for each in (image_a, image_b)]
    ways = [("plain", {}, None)]
    ways += [(f"zoom {n}", {}, int(n)) for n in arguments.zoom.split(",") if n]
    ways += [(f"tiles {n}", {"tiles": int(n)}, None) for n in arguments.tiles.split(",") if n]
    print("            matches   median px   below 2 px   CPU s")
    for name, options, zoom in ways:
        descriptor = kd.create_descriptor("nano", long_side=arguments.long_side, **options)
        begin = time.process_time()
        found = kd.match_images(*images, descriptor, search="none", refined=False, zoom=zoom)
        seconds = time.process_time() - begin
        points_a, points_b, _ = found.matches.numpy()
        there = cv2.perspectiveTransform(points_a[None].astype(float), MATRIX)[0]
        error = np.linalg.norm(there - points_b, axis=1)
        print(
            f"{name:<10}{len(error):>9}{np.median(error):>12.2f}{(error < 2).mean():>12.0%}"
            f"{seconds:>8.0f}"
        )


if __name__ == "__main__":
    main()
