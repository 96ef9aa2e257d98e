"""Bring one photograph to where another has it, pixel by pixel; dark is where the two disagree.

python examples/warp_by_flow.py [A B] [--backbone nano]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = [str(DATA / "graffiti_a.jpg"), str(DATA / "graffiti_b.jpg")]
    parser.add_argument("images", nargs="*", default=defaults)
    parser.add_argument("--backbone", default="nano")
    parser.add_argument("--picture", default="flow.png")
    arguments = parser.parse_args()

    ditf = kd.create_descriptor(arguments.backbone)
    image_a, image_b = (kd.as_image(path) for path in arguments.images)
    flow = kd.dense_flow(ditf(image_a), ditf(image_b))

    share = flow.consistent.float().mean().item()
    print(f"{share:.0%} of the pixels come back to where they began")
    warped = flow.warp(image_b) * (0.25 + 0.75 * flow.consistent)
    picture = torch.cat([image_a, warped], 3)[0].permute(1, 2, 0)
    kd.save_picture(arguments.picture, (255 * picture).byte().numpy())
    print(f"picture: {arguments.picture}")


if __name__ == "__main__":
    main()
