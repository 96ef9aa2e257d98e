"""Match pairs of images and measure it, with intervals.

Queries are the centres of an 8-pixel grid of the first image; the best match by cosine is sought
among the centres of the same grid of the second image. Intervals hold 95 % of a bootstrap over
squares of 4 x 4 queries, since neighbours err together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from describers import Describe
from pairs import QUERY_PX, TestPair, queries_of
from views import Array, project

THRESHOLDS_PX = (4, 8, 16)
SQUARE_PX = 4 * QUERY_PX
REPEATS = 1000
CORNER_REPEATS = 40
LOST_PX = 1000.0


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


def fit(matched_a: Array, matched_b: Array, within_px: float) -> Array | None:
    """Estimate the homography from matches (MAGSAC); None where there is none."""
    if len(matched_a) < 4:
        return None
    cv2.setRNGSeed(0)
    found, _ = cv2.findHomography(
        matched_a.astype(np.float32),
        matched_b.astype(np.float32),
        cv2.USAC_MAGSAC,
        within_px,
        maxIters=10000,
        confidence=0.999,
    )
    return found


def corner_error(
    matched_a: Array, matched_b: Array, pair: TestPair, within_px: float = 8.0
) -> float:
    """Estimate the homography from matches; return the mean distance of the pair's corners.

    A homography that is lost counts as LOST_PX.
    """
    found = fit(matched_a, matched_b, within_px)
    if found is None:
        return LOST_PX
    apart = project(found, pair.corners) - project(pair.homography, pair.corners)
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
    if pair.homography is not None:
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


def table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Format rows as Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def cell(value: tuple[float, float, float] | None) -> str:
    return "-" if value is None else f"{value[0]:.1f} ({value[1]:.1f} to {value[2]:.1f})"
