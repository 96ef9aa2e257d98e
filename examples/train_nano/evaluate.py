"""Weights in, tables of how well the descriptor matches pairs that trained nothing out.

    python examples/train_nano/evaluate.py --data DIR --weights FOLDER --out FOLDER

Queries are the centres of an 8-pixel grid of the first image; the best match by cosine is sought
among the centres of the same grid of the second image. Intervals hold 95 % of a bootstrap over
squares of 4 x 4 queries, since neighbours err together.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from describers import Describe, load_nano, nano, rgb_patch, rootsift
from network import build, write
from pairs import QUERY_PX, TestPair, further_pairs, queries_of, trial_pairs, warped_pairs
from views import Array, project, token_centres

THRESHOLDS_PX = (4, 8, 16)
SQUARE_PX = 4 * QUERY_PX
REPEATS = 1000
CORNER_REPEATS = 40
LOST_PX = 1000.0
BASELINE = "dense RootSIFT (8)"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What matching one pair gave, over the queries whose truth is known and in the image.

    Attributes:
        distance_px: from the match to the truth, shape (K,).
        mutual: whether the match finds its query back, shape (K,).
        square: number of the square of queries that each is in, shape (K,).
        corners_px: mean corner error of the homography from mutual matches, and its interval;
            None where the pair has none.
    """

    distance_px: Array
    mutual: Array
    square: Array
    corners_px: tuple[float, float, float] | None = None

    def share(self, pixels: float, mutual: bool, weights: Array | None = None) -> Any:
        """Return the share of right matches (PCK; of mutual ones, MMA).

        Args:
            pixels: how near is right.
            mutual: count mutual matches alone.
            weights: how often each square is drawn, shape (R, squares); none is once each.

        Returns:
            a number, or shape (R,); NaN where nothing is counted.
        """
        counted = self.mutual if mutual else np.ones_like(self.mutual)
        right = counted & (self.distance_px <= pixels)
        squares = self.square.max(initial=0) + 1
        of, hit = (np.bincount(self.square, x, squares) for x in (counted, right))
        drawn = np.ones(squares) if weights is None else weights
        with np.errstate(invalid="ignore"):
            return (drawn @ hit) / (drawn @ of)

    def draw_weights(self, rng: np.random.Generator, repeats: int) -> Array:
        """Draw squares with replacement, `repeats` times."""
        squares = self.square.max(initial=0) + 1
        occupied = np.bincount(self.square, minlength=squares) > 0
        weights: Array = rng.multinomial(occupied.sum(), occupied / occupied.sum(), repeats)
        return weights


def corner_error(matched_a: Array, matched_b: Array, pair: TestPair) -> float:
    """Estimate the homography from matches; return the mean distance of the four corners.

    A homography that is lost counts as LOST_PX.
    """
    cv2.setRNGSeed(0)
    found, _ = cv2.findHomography(
        matched_a.astype(np.float32),
        matched_b.astype(np.float32),
        cv2.USAC_MAGSAC,
        8.0,
        maxIters=10000,
        confidence=0.999,
    )
    if found is None:
        return LOST_PX
    height, width = pair.image_a.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    apart = project(found, corners) - project(pair.homography, corners)
    return min(float(np.linalg.norm(apart, axis=1).mean()), LOST_PX)


def corner_errors(matched_a: Array, matched_b: Array, pair: TestPair) -> tuple[float, float, float]:
    """Return the corner error of all matches, and its interval over draws of them."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(matched_a), size=len(matched_a)) for _ in range(CORNER_REPEATS)]
    drawn = [corner_error(matched_a[draw], matched_b[draw], pair) for draw in draws]
    low, high = np.quantile(drawn, (0.025, 0.975), method="nearest")
    return corner_error(matched_a, matched_b, pair), float(low), float(high)


def match_pair(pair: TestPair, describe: Describe) -> Outcome:
    """Match one pair and measure it where the truth is known and inside the second image."""
    queries, targets = queries_of(pair.image_a), queries_of(pair.image_b)
    return match_described(pair, describe(pair.image_a, queries), describe(pair.image_b, targets))


def match_described(
    pair: TestPair, described_a: torch.Tensor, described_b: torch.Tensor
) -> Outcome:
    """Match the descriptors of a pair's queries and targets, each of unit length."""
    queries, targets = queries_of(pair.image_a), queries_of(pair.image_b)
    similarity = described_a @ described_b.T
    best = similarity.argmax(1).numpy()
    mutual = similarity.argmax(0).numpy()[best] == np.arange(len(best))
    distance = np.linalg.norm(targets[best] - pair.truth, axis=1)
    height, width = pair.image_b.shape[:2]
    with np.errstate(invalid="ignore"):
        known = (pair.truth >= 0).all(1) & (pair.truth < [width, height]).all(1)
    columns = pair.image_a.shape[1] // SQUARE_PX + 1
    square = (queries // SQUARE_PX).astype(int) @ [1, columns]
    corners = None
    if pair.homography is not None and mutual.sum() >= 4:
        corners = corner_errors(queries[mutual], targets[best[mutual]], pair)
    return Outcome(distance[known], mutual[known], square[known], corners)


def mean_share(
    outcomes: Sequence[Outcome],
    pixels: float,
    mutual: bool = False,
    against: Sequence[Outcome] | None = None,
) -> tuple[float, float, float]:
    """Average a share over pairs.

    Args:
        outcomes: one per pair.
        pixels: how near is right.
        mutual: of mutual matches alone (MMA), or of all (PCK).
        against: another descriptor's outcomes of the same pairs, whose share is subtracted.

    Returns:
        the mean and the ends of its interval, in per cent.
    """
    rng = np.random.default_rng(0)
    once, drawn = [], []
    for index, outcome in enumerate(outcomes):
        weights = outcome.draw_weights(rng, REPEATS)
        less = against[index] if against else None
        once.append(outcome.share(pixels, mutual) - (less.share(pixels, mutual) if less else 0))
        drawn.append(outcome.share(pixels, mutual, weights))
        if less:
            drawn[-1] = drawn[-1] - less.share(pixels, mutual, weights)
    low, high = np.nanquantile(np.mean(drawn, 0), (0.025, 0.975))
    return 100 * float(np.mean(once)), 100 * float(low), 100 * float(high)


def seconds_per_image(describe: Describe, repeats: int = 5) -> float:
    """Time the description of a 480x384 image on its 8-pixel grid; return the median."""
    image = np.random.default_rng(0).integers(0, 256, (384, 480, 3), dtype=np.uint8)
    points = token_centres((384, 480), QUERY_PX)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        describe(image, points)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Format rows as Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def cell(value: tuple[float, float, float] | None) -> str:
    return "-" if value is None else f"{value[0]:.1f} ({value[1]:.1f} to {value[2]:.1f})"


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
        corners = [outcome.corners_px for outcome in found if outcome.corners_px]
        rows[name] += [cell(value) for value in corners]
    head = [f"PCK@{pixels} of", *names]
    width = max(len(cells) for cells in rows.values())
    return table([*head, *["graf corners, px"] * (width - len(names))], rows)


def lead_table(outcomes: Mapping[str, Sequence[Outcome]], names: Sequence[str]) -> str:
    """Show by how much every other descriptor is ahead of the baseline, on the same points."""
    base = outcomes[BASELINE]
    rows = {}
    for name, found in outcomes.items():
        if name != BASELINE:
            rows[name] = [cell(mean_share(found, r, against=base)) for r in THRESHOLDS_PX]
            for mine, other in zip(found, base, strict=True):
                rows[name].append(cell(mean_share([mine], 16, against=[other])))
    head = [f"less {BASELINE}", *(f"PCK@{r}" for r in THRESHOLDS_PX)]
    return table([*head, *(f"{name} @16" for name in names)], rows)


def spread_table(found: Mapping[str, Sequence[Sequence[Outcome]]]) -> str:
    """Show the mean over seeds and the least and greatest of them."""
    rows = {}
    for name, seeds in found.items():
        rows[name] = []
        for mutual in (False, True):
            for r in THRESHOLDS_PX:
                values = [100 * np.mean([o.share(r, mutual) for o in seed]) for seed in seeds]
                rows[name].append(cell((np.mean(values), min(values), max(values))))
    kinds = [f"{kind}@{r}" for kind in ("PCK", "MMA") for r in THRESHOLDS_PX]
    return table(["descriptor", *kinds], rows)


def untrained(seed: int, block: int, timestep: float) -> Describe:
    """Make the network without training, from a seed."""
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        write(build(), Path(folder))
        return nano(load_nano(Path(folder), block, timestep, seed=seed))


def describers(options: argparse.Namespace, seed: int) -> dict[str, Describe]:
    """Make all that is compared; the seed is that of noise and of untrained weights."""
    at = (options.block, options.timestep)
    name = f"nano, block {at[0]}, t {at[1]:g}"
    found: dict[str, Describe] = {
        "RGB patch 16x16": rgb_patch,
        BASELINE: rootsift,
        "nano untrained": untrained(seed, *at),
        f"{name}, raw": nano(load_nano(options.weights, *at, "raw", seed=seed)),
        f"{name}, AdaLN": nano(load_nano(options.weights, *at, "adaln", seed=seed)),
        f"{name}, AdaLN, not reduced": nano(
            load_nano(options.weights, *at, "adaln", seed=seed, long_side=None)
        ),
    }
    if options.discard:
        ditf = load_nano(options.weights, *at, "adaln+discard", options.discard, seed)
        found[f"{name}, AdaLN + discard {options.discard}"] = nano(ditf)
    return found


def report(options: argparse.Namespace) -> str:
    """Match every pair with every descriptor; return the tables."""
    parts = []
    compared = describers(options, 0)
    for title, pairs in (
        ("The trial's seven pairs", trial_pairs(options.data)),
        ("Further real pairs", further_pairs(options.data)),
    ):
        names = [pair.name for pair in pairs]
        outcomes = {
            name: [match_pair(pair, describe) for pair in pairs]
            for name, describe in compared.items()
        }
        parts += [f"## {title}\n", mean_table(outcomes)]
        parts += [pair_table(outcomes, names, r) for r in (16, 8)] + [lead_table(outcomes, names)]
    seeds: dict[str, list[list[Outcome]]] = {name: [] for name in compared}
    for seed in range(1, options.seeds + 1):
        pairs = warped_pairs(100 + seed)
        for name, describe in describers(options, seed).items():
            seeds[name].append([match_pair(pair, describe) for pair in pairs])
    if options.seeds:
        parts += [f"## Warped photographs, {options.seeds} seeds\n", spread_table(seeds)]
    rows = {name: [f"{seconds_per_image(describe):.2f}"] for name, describe in compared.items()}
    parts += ["## Seconds for an image of 480 x 384\n"]
    parts += [table([f"{options.threads} threads", "s"], rows)]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="folder for evaluation.md")
    parser.add_argument("--block", type=int, default=5)
    parser.add_argument("--timestep", type=float, default=0)
    parser.add_argument("--discard", type=int, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=5, help="draws of warps, noise and weights")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    tables = report(options)
    print(tables)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation.md").write_text(tables)


if __name__ == "__main__":
    main()
