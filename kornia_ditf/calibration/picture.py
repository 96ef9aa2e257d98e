"""The picture of a calibration: scores over blocks and timesteps, and score against cost."""

from __future__ import annotations

import numpy as np

from kornia_ditf.calibration.grid import CostModel
from kornia_ditf.calibration.search import Calibration
from kornia_ditf.utils.picture import Picture
from kornia_ditf.viz.picture import figure_pixels, new_figure


def draw_calibration(found: Calibration, cost: CostModel, title: str) -> Picture:
    """Draw a heat map of the first stage with the chosen cell, and the finalists' scores by cost.

    Args:
        found: what `calibrate` returned.
        cost: of its backbone.
        title: the line above.

    Returns:
        the picture, shape (H, W, 3), RGB.
    """
    timesteps = sorted({timestep for timestep, _ in found.screened})
    blocks = sorted({block for _, block in found.screened})
    heat = np.array([[100 * found.screened[t, b] for b in blocks] for t in timesteps])
    figure, canvas = new_figure(6.5 + min(8.0, 0.22 * len(blocks)), 4.6)
    left, right = figure.subplots(1, 2)
    shown = left.imshow(heat.clip(0), aspect="auto", cmap="viridis", origin="lower")
    left.set_yticks(range(len(timesteps)), [f"{timestep:g}" for timestep in timesteps])
    step = max(1, len(blocks) // 20)
    left.set_xticks(range(0, len(blocks), step), blocks[::step])
    cell = found.cell
    place = (blocks.index(cell.block), timesteps.index(cell.timestep))
    left.plot(*place, "s", ms=14, mfc="none", mec="#ff3b30", mew=2)
    left.set_xlabel("block")
    left.set_ylabel("timestep")
    left.set_title("best of all treatments at the smallest side, %", loc="left", fontsize=9)
    figure.colorbar(shown, ax=left, pad=0.02)

    costs = np.array([cost.cell_flops(each) for each in found.finalists]) / 1e9
    scores = 100 * np.array(list(found.finalists.values()))
    right.plot(costs, scores, ".", color="#8e8e93")
    order = np.lexsort((-scores, costs))
    front = np.maximum.accumulate(scores[order])
    right.step(costs[order], front, where="post", color="#0a84ff")
    own = (cost.cell_flops(cell) / 1e9, 100 * found.score.value)
    errors = np.array([[own[1] - 100 * found.score.low], [100 * found.score.high - own[1]]])
    right.errorbar(*own, yerr=errors.clip(0), fmt="s", color="#ff3b30", capsize=3, label="chosen")
    right.set_xscale("log")
    right.set_xlabel("GFLOP per image (estimated)")
    right.set_title("settings measured on all samples, %", loc="left", fontsize=9)
    right.legend(loc="lower right", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure_pixels(canvas)
