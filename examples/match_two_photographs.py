"""Match two photographs of one wall, and ask OpenCV which homography explains the matches.

python examples/match_two_photographs.py [A B] [--backbone nano]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import torch

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = [str(DATA / "graffiti_a.jpg"), str(DATA / "graffiti_b.jpg")]
    parser.add_argument("images", nargs="*", default=defaults)
    parser.add_argument("--backbone", default="nano")
    parser.add_argument("--picture", default="matches.png")
    arguments = parser.parse_args()

    ditf = kd.create_descriptor(arguments.backbone)
    image_a, image_b = (kd.read_image(path) for path in arguments.images)
    matches = kd.match(ditf(image_a), ditf(image_b))

    points_a, points_b = matches.points_a.numpy(), matches.points_b.numpy()
    homography, inliers = cv2.findHomography(points_a, points_b, cv2.USAC_MAGSAC, 8.0)
    print(f"{len(matches)} matches, {int(inliers.sum())} of them on one plane")
    print(homography.round(7))
    kept = torch.from_numpy(inliers.ravel().astype(bool))
    kd.save_picture(arguments.picture, kd.draw_matches(image_a, image_b, matches, inliers=kept))
    print(f"picture: {arguments.picture}")


if __name__ == "__main__":
    main()
