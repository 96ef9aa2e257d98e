"""Match two photographs at the corners that a detector of OpenCV finds, not at every token.

python examples/match_at_detected_corners.py
"""

from __future__ import annotations

from pathlib import Path

import cv2

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"


def main() -> None:
    images = [kd.read_image(DATA / f"graffiti_{name}.jpg") for name in "ab"]
    corners = cv2.GFTTDetector_create(2000, 0.001, 5.0)  # or a Kornia detector, or a name: "sift"
    matcher = kd.create_matcher("nano", detector=corners)
    matches = matcher({"image0": images[0], "image1": images[1]})

    points_a, points_b = (matches[f"keypoints{side}"].numpy() for side in "01")
    homography, inliers = cv2.findHomography(points_a, points_b, cv2.USAC_MAGSAC, 5.0)
    print(f"{len(points_a)} matches, {int(inliers.sum())} of them on one plane")
    print(homography.round(7))


if __name__ == "__main__":
    main()
