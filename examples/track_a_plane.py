"""Track a planar target through a video with Kornia's HomographyTracker.

python examples/track_a_plane.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from kornia.geometry.linalg import transform_points
from kornia.geometry.transform import warp_perspective
from kornia.tracking import HomographyTracker

import kornia_ditf as kd

PHOTOGRAPH = Path(__file__).parent / "data" / "graffiti_a.jpg"


def main() -> None:
    torch.manual_seed(0)  # of the tracker's RANSAC
    target = kd.read_image(PHOTOGRAPH).mean(1, keepdim=True)
    corners = torch.tensor([[[160.0, 128.0], [480.0, 128.0], [480.0, 384.0], [160.0, 384.0]]])
    matcher = kd.create_matcher("nano", long_side=320)
    tracker = HomographyTracker(matcher, fast_matcher=matcher)
    tracker.set_target(target)  # described once
    for frame in range(3):
        angle = torch.tensor(0.06 * frame)
        truth = torch.tensor(
            [
                [angle.cos(), -angle.sin(), 20.0 * frame],
                [angle.sin(), angle.cos(), -12.0 * frame],
                [1e-4 * frame, 0.0, 1.0],
            ]
        )[None]
        video = warp_perspective(target, truth, target.shape[-2:])
        with torch.inference_mode():
            homography, found = tracker(video)
        error = transform_points(homography[None], corners) - transform_points(truth, corners)
        print(f"frame {frame}: found {found}, off by {error.norm(dim=-1).mean():.2f} pixels")


if __name__ == "__main__":
    main()
