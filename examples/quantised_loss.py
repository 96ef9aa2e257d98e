"""Measure what fewer bits change: cosines to float32, and PCK on the pairs of examples/data.

    python examples/quantised_loss.py [--long-side 336]

The first table is of weights, the second of stored descriptors, and the last lines are of tiny
models in the real architectures, with random weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import kornia_ditf as kd
from kornia_ditf.bench.models import random_backbone
from kornia_ditf.types.storage import decode, encode

DATA = Path(__file__).parent / "data"
WEIGHTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"quantize": "int8"},
    "fp8": {"quantize": "fp8"},
    "bfloat16": {"dtype": "bfloat16"},
}
TREATMENTS = ("adaln+discard", "raw")
TINY = ("flux.1-dev", "sd3.5-medium", "pixart-sigma-1024")

Maps = list[kd.DescriptorMap]


def stored(described: kd.DescriptorMap, store: str) -> kd.DescriptorMap:
    """Return a map as it is read from a file."""
    data = decode(encode({"descriptors": described.data}, store))["descriptors"]
    return kd.DescriptorMap(data.float(), described.frame)


def cosines(a: kd.DescriptorMap, b: kd.DescriptorMap) -> torch.Tensor:
    """Return the cosine of every token."""
    return F.cosine_similarity(a.data, b.data, dim=1).flatten()


def report(name: str, pairs: list[kd.Pair], plain: Maps, changed: Maps) -> None:
    """Print a line: how far descriptors change, and how many points are found."""
    scores = []
    for pair, a, b in zip(pairs, changed[::2], changed[1::2], strict=True):
        points = kd.match_points(a, pair.points_a[None], b).points_b[0]
        threshold = 0.05 * max(b.frame.image_size)
        scores.append((points - pair.points_b).norm(dim=1).le(threshold).float().mean().item())
    together = torch.cat([cosines(*maps) for maps in zip(plain, changed, strict=True)])
    shown = ", ".join(f"{score:.3f}" for score in scores)
    print(f"{name}: cosine {together.mean():.5f}, least {together.min():.5f}; PCK {shown}")


def main() -> None:
    """Print a line for each kind of weights, and for each way to store descriptors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long-side", type=int, default=336)
    long_side = parser.parse_args().long_side
    dataset = kd.load_dataset("folder", root=str(DATA))
    pairs = [dataset[index] for index in range(len(dataset))]
    images = [image for pair in pairs for image in (pair.image_a, pair.image_b)]

    def describe(**options: Any) -> Maps:
        descriptor = kd.create_descriptor("nano", long_side=long_side, **options)
        return [descriptor(image) for image in images]

    plain = describe()
    for name, options in WEIGHTS.items():
        report(name, pairs, plain, describe(**options) if options else plain)
    for treatment in TREATMENTS:
        treated = describe(treatment=treatment)
        for store in ("float32", "float16", "int8"):
            read = [stored(described, store) for described in treated]
            report(f"{treatment}, stored {store}", pairs, treated, read)
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    for name in TINY:
        torch.manual_seed(0)
        backbone = random_backbone(name, torch.device("cpu"), torch.float32, tiny=True)
        described = kd.DiTF(backbone, kd.DiTFConfig(block=2, timestep=250, long_side=96))(image)
        for store in ("float16", "int8"):
            least = cosines(described, stored(described, store)).min()
            print(f"tiny {name}, stored {store}: least cosine {least:.5f}")


if __name__ == "__main__":
    main()
