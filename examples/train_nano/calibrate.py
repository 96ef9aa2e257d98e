"""Choose longest side, block and timestep on held-out photographs; measure the flow loss.

    python examples/train_nano/calibrate.py --data DIR --weights FOLDER

The photographs are those that training left out, in synthetic views, so that the pairs of
`measure.py` decide nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from describers import BASELINE, load_nano, nano, rootsift
from measure import THRESHOLDS_PX, cell, match_pair, mean_share, table
from network import Network, flow_losses, read
from pairs import QUERY_PX, TestPair
from photographs import split
from sweep import Sweep, sweep
from views import as_tensor, draw_pair, pyramid

SIZE = (384, 480)
LONG_SIDES = (480, 336, 288)
LEVELS = torch.linspace(0.06, 0.94, 8)


def held_out_pairs(data: Path, count: int, seed: int = 7) -> list[TestPair]:
    """Draw pairs of the held-out photographs, with the queries' truth on the 8-pixel grid."""
    pyramids = [pyramid(image) for image in split(data)[1]]
    pairs = []
    for index in range(count):
        drawn = draw_pair(np.random.default_rng([seed, index]), pyramids, SIZE, QUERY_PX)
        truth = np.where(drawn.visible[:, None], drawn.points_b, np.nan)
        pairs.append(TestPair(f"held-out-{index}", drawn.view_a, drawn.view_b, truth))
    return pairs


def held_out_flow(network: Network, pairs: Sequence[TestPair]) -> list[float]:
    """Mean flow loss of the views at each of LEVELS, each view with its own fixed noise."""
    total = torch.zeros(len(LEVELS))
    for index, pair in enumerate(pairs):
        image = as_tensor([pair.image_a]).expand(len(LEVELS), -1, -1, -1)
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(index))
        total += flow_losses(network, image, noise, LEVELS)
    means: list[float] = (total / len(pairs)).tolist()
    return means


def flow_table(weights: Sequence[Path], pairs: Sequence[TestPair]) -> str:
    """Show the flow losses of several weights; the last row is the first over the second."""
    losses = {str(folder): held_out_flow(read(folder), pairs) for folder in weights}
    for found in losses.values():
        found.append(float(np.mean(found)))
    rows = {name: [f"{loss:.4f}" for loss in found] for name, found in losses.items()}
    if len(weights) > 1:
        first, second = list(losses.values())[:2]
        rows["first over second"] = [f"{a / b:.2f}" for a, b in zip(first, second, strict=True)]
    return table(["flow loss at noise", *(f"{s:.2f}" for s in LEVELS.tolist()), "mean"], rows)


def long_side_table(weights: Path, pairs: Sequence[TestPair], at: tuple[int, float]) -> str:
    """Show PCK of RootSIFT, and of nano when the views are reduced to several longest sides."""
    compared = {BASELINE: rootsift}
    for side in LONG_SIDES:
        compared[f"nano at {side} px"] = nano(load_nano(weights, *at, long_side=side))
    rows = {}
    for name, describe in compared.items():
        outcomes = [match_pair(pair, describe) for pair in pairs]
        rows[name] = [cell(mean_share(outcomes, r)) for r in THRESHOLDS_PX]
    return table([f"views of {SIZE[1]} px", *(f"PCK@{r}" for r in THRESHOLDS_PX)], rows)


def block_table(found: Sweep, blocks: Sequence[int], timesteps: Sequence[float]) -> str:
    """Show PCK@8 of AdaLN at every block and timestep."""
    rows = {
        str(b): [f"{found.pck('adaln', b, t, QUERY_PX):.1f}" for t in timesteps] for b in blocks
    }
    return table(["block", *(f"t {t:g}" for t in timesteps)], rows)


def channel_table(found: Sweep, blocks: Sequence[int], timestep: float) -> str:
    """Show each block's largest channels, as multiples of the median channel."""
    rows = {}
    for block in blocks:
        seen = found.channels[block, timestep]
        rows[str(block)] = [
            ", ".join(
                f"{c}: {seen.ratio[c]:.1f} ({seen.token_share[c]:.0%})" for c in seen.largest(4)
            ),
            str(list(seen.massive())),
        ]
    return table(["block", "largest channels (share of tokens)", "massive"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--control", type=Path, help="weights whose flow loss is set beside")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--blocks", type=int, nargs="*", default=[3, 4, 5, 6, 7])
    parser.add_argument("--timesteps", type=float, nargs="*", default=[0, 20, 50, 100])
    parser.add_argument("--flow-only", action="store_true", help="show the flow loss and stop")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    pairs = held_out_pairs(options.data, options.pairs)
    compared = [options.weights, *([options.control] if options.control else [])]
    if options.control or options.flow_only:
        print(flow_table(compared, pairs[:8]))
    if options.flow_only:
        return
    found = sweep(options.weights, pairs, options.blocks, options.timesteps)
    block, timestep = found.best(QUERY_PX)
    print(long_side_table(options.weights, pairs, (block, timestep)))
    print(block_table(found, options.blocks, options.timesteps))
    print(channel_table(found, options.blocks, timestep))
    print(f"best by PCK@8 of AdaLN: block {block}, timestep {timestep:g}\n")
    rows = {
        f"{name}, block {block}, t {timestep:g}": [
            cell(mean_share(found.outcomes[name, block, timestep], r)) for r in THRESHOLDS_PX
        ]
        for name in ("raw", "adaln", "adaln+discard")
    }
    print(table(["held-out", "PCK@4", "PCK@8", "PCK@16"], rows))


if __name__ == "__main__":
    main()
