"""Write the pairs that took no part in training as a folder that `kornia-ditf calibrate` reads.

    python examples/train_nano/held_out.py --data DIR --out FOLDER

Writes FOLDER/pairs, with pairs.json and PNG files, for `--dataset folder`, and FOLDER/first with
the first images alone, for `--images`. The pairs are those of `pairs.py` (painted wall, plant, box,
boards, four photographs under a homography), without the motorcycle, which the package ships.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from pairs import TestPair, further_pairs, queries_of, trial_pairs

POINTS = 120


def entry(pair: TestPair, rng: np.random.Generator) -> dict[str, object]:
    """Return a pair's row of pairs.json, with some of the points whose places are known."""
    height, width = pair.image_b.shape[:2]
    inside = (pair.truth >= 0).all(1) & (pair.truth <= [width - 1, height - 1]).all(1)
    known = np.flatnonzero(np.isfinite(pair.truth).all(1) & inside)
    chosen = np.sort(rng.permutation(known)[:POINTS])
    return {
        "name": pair.name,
        "image_a": f"{pair.name}_a.png",
        "image_b": f"{pair.name}_b.png",
        "points_a": queries_of(pair.image_a)[chosen].round(2).tolist(),
        "points_b": pair.truth[chosen].round(2).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pairs = [*trial_pairs(options.data), *further_pairs(options.data)]
    pairs = [pair for pair in pairs if pair.name != "motorcycle"]
    folders = options.out / "pairs", options.out / "first"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for pair in pairs:
        for side, image in (("a", pair.image_a), ("b", pair.image_b)):
            for folder in folders[: 2 if side == "a" else 1]:
                cv2.imwrite(str(folder / f"{pair.name}_{side}.png"), image[..., ::-1])
    rng = np.random.default_rng(0)
    rows = [entry(pair, rng) for pair in pairs]
    (folders[0] / "pairs.json").write_text(json.dumps(rows, indent=1))
    print(f"{len(rows)} pairs, {sum(len(r['points_a']) for r in rows)} points, in {options.out}")


if __name__ == "__main__":
    main()
