"""Measure what 8-bit weights change: cosines to float32, and PCK on the pairs of examples/data.

python examples/quantised_loss.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"
KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"quantize": "int8"},
    "fp8": {"quantize": "fp8"},
    "bfloat16": {"dtype": "bfloat16"},
}


def main() -> None:
    """Print a line for each kind of weights."""
    pairs = kd.load_dataset("folder", root=str(DATA))
    plain = kd.create_descriptor("nano")
    for name, options in KINDS.items():
        descriptor = kd.create_descriptor("nano", **options)
        cosines, scores = [], []
        for pair in (pairs[index] for index in range(len(pairs))):
            a, b = (descriptor(image) for image in (pair.image_a, pair.image_b))
            for image, described in ((pair.image_a, a), (pair.image_b, b)):
                cosines.append(F.cosine_similarity(plain(image).data, described.data, dim=1))
            found = kd.match_points(a, pair.points_a[None], b).points_b[0]
            threshold = 0.05 * max(b.frame.image_size)
            scores.append((found - pair.points_b).norm(dim=1).le(threshold).float().mean().item())
        together = torch.cat([each.flatten() for each in cosines])
        shown = ", ".join(f"{score:.3f}" for score in scores)
        print(f"{name}: cosine {together.mean():.5f}, least {together.min():.5f}; PCK {shown}")


if __name__ == "__main__":
    main()
