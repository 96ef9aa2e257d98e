"""Compare two calibrations of one backbone: does the first choose what the second finds best?

    kornia-ditf calibrate nano --images DIR --out free
    kornia-ditf calibrate nano --dataset folder --root examples/data --exhaustive --out labelled
    python examples/calibration_agreement.py free labelled

The second is usually exhaustive and labelled. Printed are the rank correlation over the settings
that both measured, and how far the first one's choice lies below the best of the second.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

Setting = tuple[float, int, int, int, str]


def read(folder: Path) -> tuple[dict[str, object], dict[Setting, float]]:
    values = json.loads((folder / "calibration.json").read_text())
    names = ("timestep", "long_side", "draws", "block", "treatment")
    return values, {tuple(c[n] for n in names): c["score"] for c in values["finalists"]}


def ranks(values: list[float]) -> np.ndarray:
    array = np.array(values)
    return (array[:, None] > array).sum(1) + ((array[:, None] == array).sum(1) - 1) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    arguments = parser.parse_args()
    (first, ours), (second, theirs) = read(arguments.first), read(arguments.second)
    common = sorted(ours.keys() & theirs.keys())
    if len(common) > 2:
        pair = [ranks([scores[each] for each in common]) for scores in (ours, theirs)]
        rank = np.corrcoef(*pair)[0, 1]
        print(f"rank correlation {rank:.2f} over {len(common)} settings that both measured")
    chosen = first["settings"]
    names = ("timestep", "long_side", "ensemble", "block", "treatment")
    key = tuple(chosen[name] for name in names)
    best = max(theirs, key=theirs.get)
    print(f"chosen by {first['measured']['task']}: {key}")
    if key in theirs:
        loss = 100 * (theirs[best] - theirs[key])
        print(f"it scores {100 * theirs[key]:.1f} % on {second['measured']['task']}, the best of")
        print(f"{len(theirs)} settings {100 * theirs[best]:.1f} % {best}: {loss:.1f} points less")
    cost = first["measured"]["cost"]
    print(f"for {cost['flops'] / cost['grid_flops']:.1%} of its grid's operations")


if __name__ == "__main__":
    main()
