"""What refinement below a cell is worth: median errors on photographs with known geometry.

    python examples/refinement_gain.py [OPENCV]

OPENCV is the folder of OpenCV's example data (Debian's `opencv-doc`, examples/data); with it the
pairs graf and aloe are measured too.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"


def planar(homography):
    def truth(points):
        return cv2.perspectiveTransform(points[None].astype(np.float64), homography)[0]

    return truth


def stereo(disparity):
    def truth(points):
        x, y = points.round().astype(int).T
        known = disparity[y, x].astype(np.float64)
        return np.stack([points[:, 0] - np.where(known > 0, known, np.nan), points[:, 1]], 1)

    return truth


homography = np.array(json.loads((DATA / "graffiti.json").read_text())["homography_a_to_b"])
disparity = cv2.imread(str(DATA / "motorcycle_disparity.png"), cv2.IMREAD_UNCHANGED) / 16
pairs = {
    "graffiti": (DATA / "graffiti_a.jpg", DATA / "graffiti_b.jpg", planar(homography)),
    "motorcycle": (DATA / "motorcycle_a.jpg", DATA / "motorcycle_b.jpg", stereo(disparity)),
}
if len(sys.argv) > 1:
    folder = Path(sys.argv[1])
    storage = cv2.FileStorage(str(folder / "H1to3p.xml"), cv2.FILE_STORAGE_READ)
    graf = planar(storage.getFirstTopLevelNode().mat())
    aloe = stereo(cv2.imread(str(folder / "aloeGT.png"), cv2.IMREAD_GRAYSCALE))
    pairs["graf 1, 3"] = (folder / "graf1.png", folder / "graf3.png", graf)
    pairs["aloe"] = (folder / "aloeL.jpg", folder / "aloeR.jpg", aloe)

ditf = kd.create_descriptor("nano")
print("| pair | matches | tokens' centres | parabola | softargmax |\n|---|---|---|---|---|")
for name, (image_a, image_b, truth) in pairs.items():
    a, b = ditf(image_a), ditf(image_b)
    matches = kd.match(a, b)
    expected = torch.from_numpy(truth(matches.points_a.numpy()))
    refined = [kd.refine(matches, a, b, method=method) for method in ("parabola", "softargmax")]
    before, *after = (
        float((found.points_b - expected).norm(dim=1).nanmedian()) for found in (matches, *refined)
    )
    gains = " | ".join(f"{error:.2f} ({error / before - 1:+.0%})" for error in after)
    print(f"| {name} | {len(matches)} | {before:.2f} | {gains} |")
