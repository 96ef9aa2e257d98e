"""Measure how well nano matches pairs that took no part in training.

    python examples/train_nano/evaluate.py --data DIR --weights FOLDER [FOLDER ...]

Prints what docs/nano-measurements.md shows: dense descriptors on an 8-pixel grid of real and warped
pairs (see `measure.py`), and the curves over turn and scale (see `curves.py`). Further folders of
weights are shown beside the first, on the same pairs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from curves import curve_tables, unseen_photographs
from describers import BASELINE, Describe, load_nano, nano, remember, rgb_patch, rootsift
from measure import THRESHOLDS_PX, Outcome, cell, match_pair, mean_share, table
from network import build, write
from pairs import QUERY_PX, further_pairs, trial_pairs
from rich.progress import Progress
from views import token_centres


def seconds_per_image(describe: Describe, repeats: int = 5) -> float:
    """Measure the CPU time that a 480x384 image takes on its 8-pixel grid; return the median."""
    points = token_centres((384, 480), QUERY_PX)
    times = []
    for seed in range(repeats):
        image = np.random.default_rng(seed).integers(0, 256, (384, 480, 3), dtype=np.uint8)
        began = time.process_time()
        describe(image, points)
        times.append(time.process_time() - began)
    return float(np.median(times))


def mean_table(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """Show the mean PCK and MMA of every descriptor."""
    kinds = [(name, r) for name in ("PCK", "MMA") for r in THRESHOLDS_PX]
    rows = {
        name: [cell(mean_share(found, r, kind == "MMA")) for kind, r in kinds]
        for name, found in outcomes.items()
    }
    return table(["descriptor", *(f"{kind}@{r}" for kind, r in kinds)], rows)


def pair_table(outcomes: Mapping[str, Sequence[Outcome]], names: Sequence[str], pixels: int) -> str:
    """Show the PCK of every pair, and of graf the corner error."""
    rows = {}
    for name, found in outcomes.items():
        rows[name] = [cell(mean_share([outcome], pixels)) for outcome in found]
        rows[name] += [cell(outcome.corners_px) for outcome in found if outcome.corners_px]
    width = max(len(cells) for cells in rows.values())
    head = [f"PCK@{pixels} of", *names]
    return table([*head, *["graf corners, px"] * (width - len(names))], rows)


def untrained(block: int, timestep: float) -> Describe:
    """Make the network without training, from seed 0."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write(build(), Path(folder))
        return nano(load_nano(Path(folder), block, timestep))


def report(
    data: Path,
    weights: Sequence[Path],
    block: int,
    timestep: float,
    track: Callable[[str, int], Callable[[], None]],
) -> str:
    """Match every pair with every descriptor; return the tables.

    Args:
        data: the folder of the photographs and packages.
        weights: folders of weights; the first is called nano.
        block: that is described.
        timestep: at which it is.
        track: makes, from a name and a number of steps, what is called after each step.
    """
    names = ["nano", *(str(folder) for folder in weights[1:])]
    loaded = {
        name: remember(load_nano(folder, block, timestep))
        for name, folder in zip(names, weights, strict=True)
    }
    searching = load_nano(weights[0], block, timestep)
    dense: dict[str, Describe] = {BASELINE: rootsift}
    dense |= {name: nano(describe) for name, describe in loaded.items()}
    compared: dict[str, Describe] = {
        "RGB patch 16x16": rgb_patch,
        "nano untrained": untrained(block, timestep),
        **dense,
        "nano, raw": nano(load_nano(weights[0], block, timestep, "raw")),
        "nano, not reduced": nano(load_nano(weights[0], block, timestep, long_side=None)),
    }
    parts = []
    for title, pairs in (
        ("Seven pairs", trial_pairs(data)),
        ("Further real pairs", further_pairs(data)),
    ):
        advance = track(title, len(compared))
        outcomes = {}
        for name, describe in compared.items():
            outcomes[name] = [match_pair(pair, describe) for pair in pairs]
            advance()
        parts += [f"## {title}\n", mean_table(outcomes)]
        parts += [pair_table(outcomes, [pair.name for pair in pairs], r) for r in (16, 8)]
    parts += ["## Turned and scaled photographs\n"]
    parts += [curve_tables(unseen_photographs(), dense, loaded, searching, track)]
    rows = {name: [f"{seconds_per_image(describe):.2f}"] for name, describe in compared.items()}
    return "\n".join([*parts, "## CPU time\n", table(["an image of 480 x 384", "s"], rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--weights", type=Path, required=True, nargs="+")
    parser.add_argument("--out", type=Path, help="folder for evaluation.md")
    parser.add_argument("--block", type=int, default=5)
    parser.add_argument("--timestep", type=float, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    torch.set_grad_enabled(False)
    with Progress() as progress:

        def track(name: str, total: int) -> Callable[[], None]:
            task = progress.add_task(name, total=total)
            return lambda: progress.advance(task)

        tables = report(options.data, options.weights, options.block, options.timestep, track)
    print(tables)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation.md").write_text(tables)


if __name__ == "__main__":
    main()
