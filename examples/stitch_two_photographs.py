"""Stitch two overlapping photographs with Kornia's ImageStitcher.

python examples/stitch_two_photographs.py [LEFT RIGHT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from kornia.contrib import ImageStitcher

import kornia_ditf as kd

PHOTOGRAPH = Path(__file__).parent / "data" / "graffiti_a.jpg"


def main() -> None:
    if len(sys.argv) == 3:
        left, right = (kd.read_image(path) for path in sys.argv[1:])
    else:  # two overlapping halves of one photograph, the right one a little lower
        whole = kd.read_image(PHOTOGRAPH)
        left, right = whole[..., :-16, :400], whole[..., 16:, 240:]
    torch.manual_seed(0)  # of the stitcher's RANSAC
    stitcher = ImageStitcher(kd.create_matcher("nano", long_side=320))
    with torch.inference_mode():
        panorama = stitcher(left, right)
    kd.save_picture("panorama.png", (panorama[0] * 255).byte().permute(1, 2, 0).numpy())
    print(f"panorama.png: {panorama.shape[-1]} x {panorama.shape[-2]} pixels")


if __name__ == "__main__":
    main()
