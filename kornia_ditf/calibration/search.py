"""Choice of a setting by successive halving over timesteps, longest sides and noise draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from kornia_ditf.calibration.grid import Cell, CostModel, Forward, Grid
from kornia_ditf.calibration.measure import Measurer, Score
from kornia_ditf.calibration.samples import Sample, Task
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.statistics import Interval, bootstrap, interval
from kornia_ditf.treatments import parse_treatment
from kornia_ditf.utils.progress import Progress, Quiet

TOLERANCE = 0.0075
"""Scores that differ by less (three quarters of a point) are tied; the cheapest forward wins."""

CONFIDENCE = 0.95
_WORTH_DRAWS = 0.02  # a noisy forward that trails the best by more is not tried with more draws
_FEWEST_SAMPLES = 4
_BLOCKS_THAT_LEARN = 3  # treatments that learn from a blank image are tried at so many blocks


class Head(NamedTuple):
    """The part of a setting that costs no forward of its own."""

    block: int
    treatment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The chosen setting, and how it was chosen.

    Args:
        cell: the setting.
        channels: the massive channels to discard; None where its treatment discards none.
        score: of the setting on all samples, in [0, 1], with its bootstrap interval.
        certainty: share of the resamples in which it is best or tied.
        finalists: scores of the settings that were measured on all samples.
        screened: the best score at each timestep and block at the smallest side, on some samples.
        samples: how many there were.
        forwards: noisy images that passed the model.
        flops: estimated floating-point operations.
        grid_forwards: what the whole grid would have taken on all samples.
        grid_flops: operations of the whole grid.
        failures: the model's error for each forward that it does not support.
    """

    cell: Cell
    channels: tuple[int, ...] | None
    score: Interval
    certainty: float
    finalists: Mapping[Cell, float]
    screened: Mapping[tuple[float, int], float]
    samples: int
    forwards: int
    flops: float
    grid_forwards: int
    grid_flops: float
    failures: Mapping[Forward, str]


def calibrate(
    measurer: Measurer,
    task: Task,
    grid: Grid,
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    exhaustive: bool = False,
    progress: Progress | None = None,
) -> Calibration:
    """Choose a setting of a grid.

    1. All timesteps at the smallest side, with one draw, on a quarter of the samples; a quarter of
       the timesteps stays, and a quarter of the blocks and treatments.
    2. All sides at these timesteps, on the same samples; a quarter of the forwards stays.
    3. These on all samples, with the massive channels of most of them. Treatments that learn from a
       blank image join here, at the best blocks.
    4. More draws for the best noisy forward, while doubling them gains more than the tolerance.

    Of the settings that were measured on all samples, the cheapest within the tolerance of the best
    is chosen. The same samples and grid always give the same choice.

    Args:
        measurer: measures and records.
        task: what is scored.
        grid: the settings.
        tolerance: scores that differ by less are tied.
        seed: of the samples that are taken first, and of the bootstrap.
        exhaustive: measure every setting on all samples, to see what the stages lose.
        progress: receives the progress of the work.

    Raises:
        InvalidArgumentError: the model has no such timestep, or refuses every forward.
    """
    for timestep in grid.timesteps:
        measurer.ditf.backbone.schedule.check(timestep)
    return _Search(measurer, task, grid, tolerance, seed, progress or Quiet()).run(exhaustive)


class _Search:
    def __init__(
        self,
        measurer: Measurer,
        task: Task,
        grid: Grid,
        tolerance: float,
        seed: int,
        progress: Progress,
    ) -> None:
        self.measurer, self.task, self.grid, self.progress = measurer, task, grid, progress
        self.tolerance, self.seed = tolerance, seed
        backbone = measurer.ditf.backbone
        self.cost = CostModel(backbone.width, backbone.pixels_per_token)
        order = np.random.default_rng(seed).permutation(len(task.samples))
        self.few = [task.samples[i] for i in order[: screening_size(len(order))]]
        self.scores: dict[Cell, dict[str, Score]] = {}
        self.schedule = backbone.schedule

    def run(self, exhaustive: bool) -> Calibration:
        treatments = [t for t in self.grid.treatments if not parse_treatment(t).learns]
        heads = [Head(*each) for each in product(self.grid.blocks, treatments or ["raw"])]
        smallest, draws = self.grid.long_sides[0], self.grid.draws[0]
        forwards = [self._forward(t, smallest, draws) for t in self.grid.timesteps]
        self._measure("timesteps", forwards, heads, self.few)
        screened = {
            (forward.timestep, block): self._best([forward], [h for h in heads if h.block == block])
            for forward in forwards
            for block in self.grid.blocks
        }
        if exhaustive:
            self._measure_all(heads)
            return self._choose(screened)
        forwards = self._best_forwards(forwards, heads)
        heads = self._best_heads(forwards, heads, least=8)
        forwards = [
            self._forward(forward.timestep, side, draws)
            for forward in forwards
            for side in self.grid.long_sides
        ]
        self._measure("sizes", forwards, heads, self.few)
        forwards = self._best_forwards(forwards, heads)
        heads = self._best_heads(forwards, heads, least=6)
        heads = [*heads, *self._heads_that_learn(forwards, heads)]
        self._measure("all samples", forwards, heads, self.task.samples, settled=True)
        self._try_draws(forwards, heads)
        return self._choose(screened)

    def _measure_all(self, heads: Sequence[Head]) -> None:
        settings = product(self.grid.timesteps, self.grid.long_sides, self.grid.draws)
        forwards = list(dict.fromkeys(self._forward(*each) for each in settings))
        self._measure("all settings", forwards, heads, self.task.samples)
        learning = self._heads_that_learn(forwards, heads)
        if learning:
            self._measure("learning", forwards, learning, self.task.samples, settled=True)

    def _forward(self, timestep: float, side: int, draws: int) -> Forward:
        return Forward(timestep, side, draws if self._is_noisy(timestep) else 1)

    def _is_noisy(self, timestep: float) -> bool:
        return self.schedule.weights(timestep)[1] > 0

    def _measure(
        self,
        stage: str,
        forwards: Sequence[Forward],
        heads: Sequence[Head],
        samples: Sequence[Sample],
        *,
        settled: bool = False,
    ) -> None:
        each = sum(sample.images for sample in samples)
        self.progress.begin(stage, each * sum(forward.draws for forward in forwards))
        for forward in forwards:
            cells = [Cell(*forward, *head) for head in heads]
            channels = self._channels(forward, heads) if settled else None
            for sample in samples:
                for cell, score in self.measurer.scores(sample, cells, channels).items():
                    self.scores.setdefault(cell, {})[sample.digest] = score
                self.progress.advance(sample.images * forward.draws)
        failures = self.measurer.failures
        if all(forward in failures for forward in forwards):
            raise InvalidArgumentError(
                f"no setting could be measured: {failures[forwards[0]]}; try other --long-sides or "
                "--timesteps"
            )

    def _channels(
        self, forward: Forward, heads: Iterable[Head | Cell]
    ) -> dict[int, tuple[int, ...]]:
        # Those of one draw: more draws were not measured in the first stages.
        screened = self._forward(forward.timestep, forward.long_side, self.grid.draws[0])
        blocks = {head.block for head in heads}
        return {b: self.measurer.channels(self.few, screened, b) for b in sorted(blocks)}

    def _score(self, cell: Cell, samples: Iterable[Sample]) -> float:
        """Return the share of points found on some samples; -1 where it was not measured on all."""
        known = self.scores.get(cell, {})
        scores = [known.get(sample.digest) for sample in samples]
        if None in scores or cell.forward in self.measurer.failures:
            return -1.0
        found, points = (sum(s[i] for s in scores if s is not None) for i in (0, 1))
        return found / points if points else 0.0

    def _best(self, forwards: Iterable[Forward], heads: Iterable[Head]) -> float:
        return max(self._score(Cell(*f, *h), self.few) for f, h in product(forwards, heads))

    def _best_forwards(self, forwards: Sequence[Forward], heads: Sequence[Head]) -> list[Forward]:
        kept = max(2, math.ceil(len(forwards) / 4))
        usable = [forward for forward in forwards if forward not in self.measurer.failures]
        return sorted(usable, key=lambda each: self._best([each], heads), reverse=True)[:kept]

    def _best_heads(
        self, forwards: Sequence[Forward], heads: Sequence[Head], *, least: int
    ) -> list[Head]:
        kept = max(least, math.ceil(len(heads) / 4))
        return sorted(heads, key=lambda each: self._best(forwards, [each]), reverse=True)[:kept]

    def _heads_that_learn(self, forwards: Sequence[Forward], heads: Sequence[Head]) -> list[Head]:
        treatments = [t for t in self.grid.treatments if parse_treatment(t).learns]
        blocks = list(dict.fromkeys(head.block for head in heads))[:_BLOCKS_THAT_LEARN]
        return [Head(*each) for each in product(blocks, treatments)]

    def _try_draws(self, forwards: Sequence[Forward], heads: Sequence[Head]) -> None:
        ranked = sorted(
            ((self._score(Cell(*f, *h), self.task.samples), h, f) for f in forwards for h in heads),
            key=lambda each: each[:2],
            reverse=True,
        )
        noisy = [each for each in ranked if self._is_noisy(each[2].timestep)]
        if not noisy or noisy[0][0] < ranked[0][0] - _WORTH_DRAWS:
            return
        _, head, forward = noisy[0]
        reached, worth = self._best([forward], heads), None
        for draws in self.grid.draws[1:]:
            more = forward._replace(draws=draws)
            self._measure(f"{draws} draws", [more], [head], self.few, settled=True)
            gained = self._score(Cell(*more, *head), self.few)
            if gained <= reached + self.tolerance:
                break
            reached, worth = gained, more
        if worth is not None:
            self._measure("all samples", [worth], heads, self.task.samples, settled=True)

    def _choose(self, screened: Mapping[tuple[float, int], float]) -> Calibration:
        samples = self.task.samples
        finalists = {
            cell: score for cell in self.scores if (score := self._score(cell, samples)) >= 0
        }
        best = max(finalists.values())
        tied = [cell for cell, score in finalists.items() if score >= best - self.tolerance]
        # A treatment costs next to nothing, so that among those of one forward the best is taken.
        cell = min(
            tied,
            key=lambda c: (self.cost.flops(c.forward, c.block), -finalists[c], c.treatment),
        )
        cells = list(finalists)
        found, points = (
            np.array([[self.scores[c][s.digest][i] for c in cells] for s in samples])
            for i in (0, 1)
        )
        drawn = bootstrap(found, points, seed=self.seed)
        own = drawn[:, cells.index(cell)]
        as_good = own >= drawn.max(1) - self.tolerance
        discards = parse_treatment(cell.treatment).discards
        spent = self.measurer.reached
        images = {sample.digest: sample.images for sample in samples}
        grid_forwards, grid_flops = self.grid.whole(sum(images.values()), self.cost)
        return Calibration(
            cell=cell,
            channels=self._channels(cell.forward, [cell])[cell.block] if discards else None,
            score=interval(finalists[cell], own, CONFIDENCE),
            certainty=float(as_good.mean()),
            finalists=finalists,
            screened=screened,
            samples=len(samples),
            forwards=sum(images[digest] * forward.draws for digest, forward in spent),
            flops=sum(images[d] * self.cost.flops(f, block) for (d, f), block in spent.items()),
            grid_forwards=grid_forwards,
            grid_flops=grid_flops,
            failures=dict(self.measurer.failures),
        )


def screening_size(samples: int) -> int:
    """Return the number of samples that the first stages take."""
    return min(samples, max(_FEWEST_SAMPLES, math.ceil(samples / 4)))
