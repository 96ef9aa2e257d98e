"""The columns of tables of costs: those that were measured for any row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kornia_ditf.study.report.analysis import Row


@dataclass(frozen=True, slots=True)
class CostKind:
    """A cost that tables have a column for.

    Args:
        key: its name in files.
        heading: of the column, with the unit.
        read: returns it of a row; None where it was not measured.
        unit: what it is multiplied by for the column.
    """

    key: str
    heading: str
    read: Callable[[Row], float | None]
    unit: float = 1

    def value(self, row: Row) -> float | None:
        """Return the cost of a row in the column's unit."""
        found = self.read(row)
        return None if found is None else found * self.unit


TOGETHER = CostKind("together", "configurations per forward", lambda row: row.cost.together)
COSTS = (
    CostKind("seconds_per_image", "s per image", lambda row: row.cost.seconds_per_image),
    TOGETHER,
    CostKind("seconds_per_pair", "s per pair", lambda row: row.cost.seconds_per_pair),
    CostKind("weights_gb", "weights, GB", lambda row: row.experiment["bytes_held"] or None, 1e-9),
    CostKind("cache_mb", "cache per image, MB", lambda row: row.cost.bytes_per_image, 1e-6),
    CostKind("peak_gb", "peak memory, GB", lambda row: row.cost.peak_bytes, 1e-9),
    CostKind("device_gb", "peak on device, GB", lambda row: row.cost.device_peak_bytes, 1e-9),
    CostKind("gflop", "GFLOP", lambda row: row.cost.flops or None, 1e-9),
    CostKind("joules", "joules", lambda row: row.cost.joules),
)


def cost_columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the columns in which a row has a value, as text by their headings."""
    found = {kind.heading: [kind.value(row) for row in rows] for kind in COSTS}
    return {
        heading: ["-" if value is None else f"{value:.3g}" for value in values]
        for heading, values in found.items()
        if any(value is not None for value in values)
    }


def pair_seconds(row: Row) -> float | None:
    """Return what describing both images of a pair and matching them takes."""
    image, pair = row.cost.seconds_per_image, row.cost.seconds_per_pair
    return None if image is None or pair is None else 2 * image + pair


def peak_gigabytes(row: Row) -> float | None:
    """Return the largest peak of memory, that of the host and of its accelerator together."""
    host, device = row.cost.peak_bytes, row.cost.device_peak_bytes
    return None if host is None else (host + (device or 0.0)) / 1e9
