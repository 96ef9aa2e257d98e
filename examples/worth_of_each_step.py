"""Show what each step of the method is worth, on two photographs whose geometry is known.

    python examples/worth_of_each_step.py [--backbone nano] [--long-side 336]

Each treatment names the part of the chain that runs: `raw` is the block's input as it is, `adaln`
normalises and modulates it, `adaln+discard` zeroes the massive channels first. One forward pass per
image would do for all; here the descriptor is simply made anew, to keep the script plain.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="nano")
    parser.add_argument("--long-side", type=int, help="to which images are scaled, in pixels")
    arguments = parser.parse_args()

    size = {"long_side": arguments.long_side} if arguments.long_side else {}
    truth = np.array(json.loads((DATA / "graffiti.json").read_text())["homography_a_to_b"])
    image_a, image_b = (kd.read_image(DATA / f"graffiti_{side}.jpg") for side in "ab")
    print(f"{'treatment':<20} matches  within 8 px  within 16 px")
    for treatment in kd.TREATMENTS:
        ditf = kd.create_descriptor(arguments.backbone, treatment=treatment, **size)
        matches = kd.match(ditf(image_a), ditf(image_b))
        points = np.c_[matches.points_a.numpy(), np.ones(len(matches))] @ truth.T
        error = np.linalg.norm(points[:, :2] / points[:, 2:] - matches.points_b.numpy(), axis=1)
        shares = [f"{100 * np.mean(error <= limit):>10.1f}%" for limit in (8, 16)]
        print(f"{treatment:<20} {len(matches):>7}  {'   '.join(shares)}")


if __name__ == "__main__":
    main()
