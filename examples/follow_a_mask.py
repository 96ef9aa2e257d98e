"""Follow a mask and a point through a video file, with a descriptor map for each frame.

python examples/follow_a_mask.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

import kornia_ditf as kd

PHOTOGRAPH = Path(__file__).parent / "data" / "motorcycle_a.jpg"
SIZE, SIDE, STEP = (192, 144), 48, 8  # width and height, of a patch that moves to the right


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.avi"
        write_clip(clip, frames=6)
        mask = torch.zeros(SIZE[1], SIZE[0], dtype=torch.int64)
        mask[48 : 48 + SIDE, 16 : 16 + SIDE] = 1
        descriptor = kd.create_descriptor("nano", long_side=192)
        # Frames are read, described and forgotten one after another.
        maps = kd.describe_video(descriptor, clip)
        for number, found in enumerate(kd.propagate_masks(maps, mask)):
            truth = torch.roll(mask, STEP * number, 1)
            overlap = (found & truth).sum() / (found | truth).sum()
            print(f"frame {number}: the mask overlaps the truth by {overlap:.0%}")
        maps = kd.describe_video(descriptor, clip)
        start = torch.tensor([[16.0 + SIDE / 2, 48.0 + SIDE / 2]])
        *_, (last, _) = kd.propagate_points(maps, start)
        print(f"the point moved from {start[0].tolist()} to {last[0].round().tolist()}")


def write_clip(path: Path, frames: int) -> None:
    """Write a patch of a photograph that moves over the rest of it."""
    photograph = cv2.resize(cv2.imread(str(PHOTOGRAPH)), SIZE)
    patch = cv2.flip(photograph, -1)[48 : 48 + SIDE, 48 : 48 + SIDE]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE)
    for number in range(frames):
        frame = np.array(photograph // 2)
        left = 16 + STEP * number
        frame[48 : 48 + SIDE, left : left + SIDE] = patch
        writer.write(frame)
    writer.release()


if __name__ == "__main__":
    main()
