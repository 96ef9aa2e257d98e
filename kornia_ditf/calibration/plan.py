"""What a calibration takes at most, worked out before a weight is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kornia_ditf.calibration.grid import CostModel, Forward, Grid
from kornia_ditf.calibration.samples import Task
from kornia_ditf.calibration.search import screening_size


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """An upper bound of the work, and the memory.

    Args:
        settings: in the grid.
        forwards: noisy images that pass the model at most.
        flops: floating-point operations at most, estimated.
        grid_forwards: noisy images for the whole grid on all samples.
        grid_flops: operations of the whole grid.
        tap_bytes: of the blocks' inputs that are held at once, float32.
    """

    settings: int
    forwards: int
    flops: float
    grid_forwards: int
    grid_flops: float
    tap_bytes: int


def plan_calibration(task: Task, grid: Grid, cost: CostModel) -> CalibrationPlan:
    """Bound the work of `calibrate`, as if every stage went on and took the largest side."""
    every = sum(sample.images for sample in task.samples)
    most = max(sample.images for sample in task.samples)
    few = screening_size(len(task.samples)) * most
    timesteps = max(2, math.ceil(len(grid.timesteps) / 4))
    kept = max(2, math.ceil(timesteps * len(grid.long_sides) / 4))
    largest = grid.long_sides[-1]
    first = grid.draws[0]
    stages = [(few * len(grid.timesteps) * first, grid.long_sides[0])]
    stages += [(few * timesteps * first, side) for side in grid.long_sides]
    stages += [(every * kept * first, largest)]
    if len(grid.draws) > 1:
        stages += [(few * sum(grid.draws[1:]) + every * grid.draws[-1], largest)]
    grid_forwards, grid_flops = grid.whole(every, cost)
    return CalibrationPlan(
        settings=grid.size,
        forwards=sum(count for count, _ in stages),
        flops=sum(
            count * cost.flops(Forward(0, side, 1), grid.blocks[-1]) for count, side in stages
        ),
        grid_forwards=grid_forwards,
        grid_flops=grid_flops,
        tap_bytes=int(4 * most * len(grid.blocks) * cost.tokens(largest) * cost.width),
    )
