"""Score a backbone on image pairs of your own, listed in pairs.json or pairs.csv beside them.

    python examples/score_own_pairs.py [FOLDER] [--backbone nano] [--long-side 320]

Without FOLDER the two pairs of photographs in examples/data are scored. `kornia-ditf study` does
the same for many descriptors, and can be stopped and resumed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import kornia_ditf as kd
from kornia_ditf.metrics.pck import PCK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--backbone", default="nano")
    parser.add_argument("--long-side", type=int, default=320)
    arguments = parser.parse_args()

    protocol = kd.find_protocol("plain")
    descriptor = kd.create_descriptor(arguments.backbone, long_side=arguments.long_side)
    pck = PCK(protocol.alphas, protocol.base, protocol.comparison)
    for pair in kd.load_dataset("folder", arguments.folder):
        map_a, map_b = descriptor.describe_together([pair.image_a, pair.image_b])
        result = kd.evaluate_pair(map_a, map_b, pair, protocol)
        pck.update(result.hits, pair.category)

    scores = pck.compute()
    print(f"{'':<20}" + "".join(f"  a = {alpha:<5g}" for alpha in scores.alphas))
    rows = {name: each.per_point for name, each in scores.categories.items()}
    for name, row in {**rows, "per point": scores.per_point, "per image": scores.per_image}.items():
        print(f"{name:<20}" + "".join(f"{100 * share:>9.1f}%" for share in row))
    print(pck.definition)


if __name__ == "__main__":
    main()
