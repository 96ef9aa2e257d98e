"""Match pairs at every block and timestep, with one forward pass an image and timestep.

Three descriptors are compared: the block's input as it is (raw), after the block's own LayerNorm,
scale and shift (AdaLN), and the same after the two largest channels were set to zero (AdaLN +
discard), massive or not, so that the picture shows what discarding does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from describers import load_nano
from measure import Outcome, match_described
from pairs import TestPair, queries_of

from kornia_ditf import describe_channels
from kornia_ditf.massive import ChannelStatistics
from kornia_ditf.treatments import describe_tap

TREATMENTS: tuple[str, ...] = ("raw", "adaln", "adaln+discard")
DISCARDED = 2


@dataclass(frozen=True, eq=False)
class Sweep:
    """What was found, by (treatment, block, timestep) and by (block, timestep).

    Attributes:
        outcomes: of matching, one per pair.
        channels: statistics of the block's input over all images.
    """

    outcomes: Mapping[tuple[str, int, float], Sequence[Outcome]]
    channels: Mapping[tuple[int, float], ChannelStatistics]

    def pck(self, treatment: str, block: int, timestep: float, pixels: int) -> float:
        """Mean PCK over pairs in per cent."""
        found = self.outcomes[treatment, block, timestep]
        return 100 * float(sum(o.share(pixels, False) for o in found)) / len(found)

    def best(self, pixels: int, treatment: str = "adaln") -> tuple[int, float]:
        """Return the block and timestep of the highest PCK."""
        places = [(b, t) for name, b, t in self.outcomes if name == treatment]
        return max(places, key=lambda place: self.pck(treatment, *place, pixels))


def sweep(
    weights: Path,
    pairs: Sequence[TestPair],
    blocks: Sequence[int],
    timesteps: Sequence[float],
    treatments: Sequence[str] = TREATMENTS,
) -> Sweep:
    """Match every pair at every block and timestep, with every treatment."""
    outcomes: dict[tuple[str, int, float], list[Outcome]] = {}
    channels: dict[tuple[int, float], ChannelStatistics] = {}
    for timestep in timesteps:
        ditf = load_nano(weights, max(blocks), timestep)
        tapped = [(ditf.taps(p.image_a, blocks), ditf.taps(p.image_b, blocks)) for p in pairs]
        for block in blocks:
            tokens = [taps[block].x for pair in tapped for taps, _ in pair]
            channels[block, timestep] = describe_channels(tokens)
            largest = channels[block, timestep].largest(DISCARDED)
            for treatment in treatments:
                found = outcomes[treatment, block, timestep] = []
                for pair, images in zip(pairs, tapped, strict=True):
                    described = []
                    for image, (taps, frame) in zip(
                        (pair.image_a, pair.image_b), images, strict=True
                    ):
                        points = torch.from_numpy(queries_of(image)).float()[None]
                        at = describe_tap(taps[block], frame, treatment, largest).at(points)[0]
                        described.append(F.normalize(at, dim=1))
                    found.append(match_described(pair, *described))
    return Sweep(outcomes, channels)
