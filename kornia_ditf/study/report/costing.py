"""The columns of a report's table of costs: those that were measured for any row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kornia_ditf.study.report.analysis import Row


@dataclass(frozen=True, slots=True)
class CostColumn:
    """A column of the table of costs, as text."""

    name: str
    values: tuple[str, ...]


_COLUMNS: tuple[tuple[str, Callable[[Row], float | None], float], ...] = (
    ("s per image", lambda row: row.cost.seconds_per_image, 1),
    ("configurations per forward", lambda row: row.cost.together, 1),
    ("s per pair", lambda row: row.cost.seconds_per_pair, 1),
    ("weights, GB", lambda row: row.experiment["bytes_held"] or None, 1e-9),
    ("cache per image, MB", lambda row: row.cost.bytes_per_image, 1e-6),
    ("peak memory, GB", lambda row: row.cost.peak_bytes, 1e-9),
    ("peak on device, GB", lambda row: row.cost.device_peak_bytes, 1e-9),
    ("GFLOP", lambda row: row.cost.flops or None, 1e-9),
    ("joules", lambda row: row.cost.joules, 1),
)


def cost_columns(rows: Sequence[Row]) -> tuple[CostColumn, ...]:
    """Return the columns in which a row has a value."""
    found = []
    for name, read, unit in _COLUMNS:
        values = [read(row) for row in rows]
        if any(value is not None for value in values):
            shown = ("-" if value is None else f"{value * unit:.3g}" for value in values)
            found.append(CostColumn(name, tuple(shown)))
    return tuple(found)


def pair_seconds(row: Row) -> float | None:
    """Return what describing both images of a pair and matching them takes."""
    image, pair = row.cost.seconds_per_image, row.cost.seconds_per_pair
    return None if image is None or pair is None else 2 * image + pair


def peak_gigabytes(row: Row) -> float | None:
    """Return the largest peak of memory, that of the host and of its accelerator together."""
    host, device = row.cost.peak_bytes, row.cost.device_peak_bytes
    return None if host is None else (host + (device or 0.0)) / 1e9
