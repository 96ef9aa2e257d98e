"""Match one pair of photographs with several descriptors, whose geometry is known.

    python examples/compare_descriptors.py [nano dinov2-base sd2.1=FOLDER ...] [--download]

Without names, every descriptor below is tried. What is not installed, or whose weights are not on
this machine, is said and passed over; --download fetches weights instead, several gigabytes each.
A NAME=FOLDER takes the weights from a folder. The two shares say how many of the matches lie
within so many pixels of the truth; one pair of photographs ranks nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import kornia_ditf as kd
from kornia_ditf.errors import HubError, UnknownBackboneError

DATA = Path(__file__).parent / "data"
NAMES = ("nano", "flux.1-dev", "dinov2-base", "dinov3-vits16", "sd2.1", "sdxl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME[=FOLDER]")
    parser.add_argument("--download", action="store_true")
    arguments = parser.parse_args()

    truth = np.array(json.loads((DATA / "graffiti.json").read_text())["homography_a_to_b"])
    images = [kd.read_image(DATA / f"graffiti_{side}.jpg") for side in "ab"]
    print(f"{'descriptor':<16} width  grid      matches  within 8 px  within 16 px")
    for asked in arguments.names:
        name, _, folder = asked.partition("=")
        try:
            descriptor = kd.create_descriptor(
                name, source=folder or None, local_files_only=not arguments.download
            )
            a, b = descriptor.describe_together(images)
        except (HubError, UnknownBackboneError) as error:
            print(f"{name:<16} not at hand: {str(error).partition(';')[0]}")
            continue
        matches = kd.match(a, b)
        points = np.c_[matches.points_a.numpy(), np.ones(len(matches))] @ truth.T
        error = np.linalg.norm(points[:, :2] / points[:, 2:] - matches.points_b.numpy(), axis=1)
        shares = [f"{100 * np.mean(error <= limit):>10.1f}%" for limit in (8, 16)]
        grid = "{} x {}".format(*a.grid)
        print(
            f"{name:<16} {descriptor.width:>5}  {grid:<9} {len(matches):>7}  {'   '.join(shares)}"
        )


if __name__ == "__main__":
    main()
