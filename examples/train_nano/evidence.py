"""Draw what AdaLN and discarding do at every block and timestep.

    python examples/train_nano/evidence.py --data DIR --weights FOLDER --out FOLDER

writes `evidence.md`, `evidence.png` (PCK of raw, AdaLN and AdaLN + discard on the trial's seven
pairs, over blocks and timesteps) and `channels.png` (how far every channel stands above the median
one, over blocks).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from calibrate import channel_table
from describers import load_nano
from measure import cell, mean_share, table
from network import BLOCKS
from pairs import TestPair, trial_pairs
from sweep import TREATMENTS, Sweep, sweep

from kornia_ditf.viz.channels import draw_channels
from kornia_ditf.viz.inspection import inspect_channels

TIMESTEPS = (0, 25, 50, 100, 200, 400, 600, 800)
PIXELS = 16
TITLES = {"raw": "raw", "adaln": "AdaLN", "adaln+discard": "AdaLN + discard of two"}


def draw(found: Sweep, blocks: Sequence[int], timesteps: Sequence[float], path: Path) -> None:
    """Draw PCK over blocks and timesteps, one panel a treatment, and their course at timestep 0."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.2), layout="constrained")
    panels = figure.subplots(1, len(TREATMENTS) + 1)
    grids = {
        treatment: np.array(
            [[found.pck(treatment, b, t, PIXELS) for t in timesteps] for b in blocks]
        )
        for treatment in TREATMENTS
    }
    top = max(grid.max() for grid in grids.values())
    for axes, (treatment, grid) in zip(panels, grids.items(), strict=False):
        axes.imshow(grid, cmap="viridis", vmin=0, vmax=top, aspect="auto")
        for (row, column), value in np.ndenumerate(grid):
            colour = "black" if value > 0.6 * top else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", size=7, color=colour)
        axes.set_title(TITLES[treatment], fontsize=10)
        axes.set_xticks(range(len(timesteps)), [f"{t:g}" for t in timesteps], fontsize=7)
        axes.set_yticks(range(len(blocks)), blocks, fontsize=7)
        axes.set_xlabel("timestep")
    panels[0].set_ylabel("block")
    for treatment, grid in grids.items():
        panels[-1].plot(blocks, grid[:, 0], marker="o", ms=3, label=TITLES[treatment])
    panels[-1].set_title(f"PCK@{PIXELS} at timestep {timesteps[0]:g}", fontsize=10)
    panels[-1].set_xlabel("block")
    panels[-1].legend(fontsize=7)
    figure.savefig(path, dpi=100)


def difference_table(found: Sweep, blocks: Sequence[int], timestep: float) -> str:
    """Show each block's PCK and how much each step of the treatment adds, with intervals."""
    rows = {}
    for block in blocks:
        raw, adaln, discard = (found.outcomes[name, block, timestep] for name in TREATMENTS)
        rows[str(block)] = [
            cell(mean_share(raw, PIXELS)),
            cell(mean_share(adaln, PIXELS, against=raw)),
            cell(mean_share(discard, PIXELS, against=adaln)),
        ]
    return table(["block", f"raw PCK@{PIXELS}", "AdaLN adds", "discarding adds"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timesteps", type=float, nargs="*", default=TIMESTEPS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    options.out.mkdir(parents=True, exist_ok=True)
    blocks = range(BLOCKS)
    # The homography is measured in `measure.py`.
    pairs: list[TestPair] = [replace(pair, homography=None) for pair in trial_pairs(options.data)]
    found = sweep(options.weights, pairs, blocks, options.timesteps)
    draw(found, blocks, options.timesteps, options.out / "evidence.png")
    first = options.timesteps[0]
    ditf = load_nano(options.weights, BLOCKS - 1, first)
    atlas = draw_channels(inspect_channels(ditf, [pair.image_a for pair in pairs]))
    cv2.imwrite(str(options.out / "channels.png"), atlas[..., ::-1])
    tables = f"{difference_table(found, blocks, first)}\n{channel_table(found, blocks, first)}"
    (options.out / "evidence.md").write_text(tables)
    print(tables)


if __name__ == "__main__":
    main()
