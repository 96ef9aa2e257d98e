"""Weights and held-out photographs in; block, timestep, massive channels and flow loss out.

    python examples/train_nano/calibrate.py --data DIR --weights FOLDER --out FILE

The photographs are those that training left out, in synthetic views, so that the test pairs of
`evaluate.py` decide nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from evaluate import QUERY_PX, TestPair, capture, nano_describer, score_pair
from network import CELL, Network, flow_loss, noisy, read
from photographs import split
from torch import Tensor
from views import as_tensor, draw_pair, pyramid

SIZE = (256, 320)
MASSIVE_RATIO = 5.0


def held_out_pairs(data: Path, count: int, seed: int = 7) -> list[TestPair]:
    """Draw pairs of the held-out photographs, with the queries' truth on the 8-pixel grid."""
    pyramids = [pyramid(image) for image in split(data)[1]]
    pairs = []
    for index in range(count):
        drawn = draw_pair(np.random.default_rng([seed, index]), pyramids, SIZE, QUERY_PX)
        truth = np.where(drawn.visible[:, None], drawn.points_b, np.nan)
        pairs.append(TestPair(f"held-out-{index}", drawn.view_a, drawn.view_b, truth))
    return pairs


def accuracy(
    network: Network,
    pairs: Iterable[TestPair],
    block: int,
    timestep: float,
    discard: tuple[int, ...] = (),
) -> float:
    """Mean PCK@8 in per cent."""
    describe = nano_describer(network, block, timestep, discard)
    return 100 * float(np.mean([score_pair(pair, describe).pck[8] for pair in pairs]))


def held_out_flow(network: Network, pairs: Iterable[TestPair]) -> float:
    """Mean flow loss of the views at eight noise levels, each with its own fixed noise."""
    levels = torch.linspace(0.06, 0.94, 8)
    losses = []
    for index, pair in enumerate(pairs):
        image = as_tensor([pair.image_a]).expand(len(levels), -1, -1, -1)
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(index))
        losses.append(flow_loss(network, image, noise, levels).item())
    return float(np.mean(losses))


def channel_magnitudes(
    network: Network, pairs: Iterable[TestPair], block: int, timestep: float
) -> tuple[Tensor, Tensor]:
    """Return mean |x| of every channel, and in what share of tokens each is the largest."""
    inputs = []
    for pair in pairs:
        latent = as_tensor([pair.image_a])
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
        latent = noisy(latent, noise, torch.tensor([timestep / 1000]))
        inputs.append(capture(network, latent, timestep, block)[0].abs())
    x = torch.cat(inputs)
    return x.mean(0), torch.bincount(x.argmax(1), minlength=x.shape[1]) / len(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--blocks", type=int, nargs="*", default=[3, 4, 5, 6, 7])
    parser.add_argument("--timesteps", type=float, nargs="*", default=[0, 20, 50, 100])
    parser.add_argument("--flow-only", action="store_true", help="print the flow loss and stop")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    network = read(options.weights)
    pairs = held_out_pairs(options.data, options.pairs)
    flow = held_out_flow(network, pairs[:8])
    print(f"held-out flow loss {flow:.4f}")
    if options.flow_only:
        return
    found = {
        (block, timestep): accuracy(network, pairs, block, timestep)
        for block in options.blocks
        for timestep in options.timesteps
    }
    print("held-out PCK@8 | " + " | ".join(f"t {timestep:g}" for timestep in options.timesteps))
    for block in options.blocks:
        cells = " | ".join(f"{found[block, timestep]:.1f}" for timestep in options.timesteps)
        print(f"block {block} | {cells}")
    best_block, best_timestep = max(found, key=lambda key: found[key])
    massive: dict[int, list[dict[str, float]]] = {}
    for block in range(len(network.transformer_blocks)):
        mean, share = channel_magnitudes(network, pairs[:8], block, best_timestep)
        ratio = mean / mean.median()
        massive[block] = [
            {
                "channel": int(c),
                "ratio": round(ratio[c].item(), 1),
                "share": round(share[c].item(), 3),
            }
            for c in ratio.argsort(descending=True)[:4]
        ]
        shown = ", ".join(
            f"{e['channel']}: {e['ratio']} ({e['share']:.0%})" for e in massive[block]
        )
        print(f"block {block} top channels, mean|x| / median (share of tokens): {shown}")
    top = massive[best_block]
    discard = tuple(int(e["channel"]) for e in top if e["ratio"] >= MASSIVE_RATIO)
    with_discard = accuracy(network, pairs, best_block, best_timestep, discard)
    print(f"best: block {best_block}, timestep {best_timestep:g}; massive {list(discard)}")
    print(f"PCK@8 with discard {with_discard:.1f}, without {found[best_block, best_timestep]:.1f}")
    if options.out:
        report = {
            "size": SIZE,
            "cell_px": CELL,
            "block": best_block,
            "timestep": best_timestep,
            "massive": list(discard),
            "flow": flow,
            "pck8": {f"{block} {timestep:g}": v for (block, timestep), v in found.items()},
            "pck8_with_discard": with_discard,
            "channels": massive,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
