"""The columns of tables of costs: those that were measured for any row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

from kornia_ditf.study.report.analysis import Row
from kornia_ditf.study.run.costs import Cost


@dataclass(frozen=True, slots=True)
class CostKind:
    """A cost that tables have a column for.

    Args:
        key: its name in files.
        heading: of the column, with the unit.
        read: returns it of a row; None or 0 where it was not measured.
        unit: what it is multiplied by for the column.
    """

    key: str
    heading: str
    read: Callable[[Row], float | None]
    unit: float

    def value(self, row: Row) -> float | None:
        """Return the cost of a row in the column's unit."""
        found = self.read(row)
        return found * self.unit if found else None


_MEASURED = [
    CostKind(
        each.metadata["key"] or each.name,
        each.metadata["heading"],
        attrgetter(f"cost.{each.name}"),
        each.metadata["unit"],
    )
    for each in fields(Cost)
]
_WEIGHTS = CostKind("weights_gb", "weights, GB", lambda row: row.experiment["bytes_held"], 1e-9)
COSTS = (*_MEASURED[:3], _WEIGHTS, *_MEASURED[3:])


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
