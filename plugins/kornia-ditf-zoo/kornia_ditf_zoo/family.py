"""Grids fitted as pipelines fit them, and noise schedules that their own schedulers work out."""

from __future__ import annotations

from typing import Any

from kornia_ditf.backbones.diffusers_backbone import read_schedule
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.noise import VariancePreserving


def fit_grid(
    grid: tuple[int, int], base: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Fit a grid of tokens into the one of training, centred, its aspect kept.

    Returns:
        the first and the last corner (row, column), in units of the training grid's tokens.
    """
    (rows, columns), (base_rows, base_columns) = grid, base
    if rows / columns > base_rows / base_columns:
        height, width = base_rows, round(base_rows / rows * columns)
    else:
        height, width = round(base_columns / columns * rows), base_columns
    top, left = round((base_rows - height) / 2), round((base_columns - width) / 2)
    return (top, left), (top + height, left + width)


def read_own_schedule(checkpoint: Checkpoint) -> VariancePreserving:
    """Read the noise schedule of a checkpoint's scheduler as that scheduler itself works it out.

    Those of CogVideoX shift the signal's share after the betas, which DDPM's do not.
    """
    return read_schedule(checkpoint, _own_schedule)


def _own_schedule(config: dict[str, Any]) -> VariancePreserving:
    import diffusers

    schedulers: Any = diffusers
    scheduler = getattr(schedulers, config["_class_name"]).from_config(config)
    return VariancePreserving(scheduler.alphas_cumprod)
