"""A log of what jobs cost, and its medians.

Times are kept apart from records, which must not depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from kornia_ditf.study.define.jobs import Describe, Evaluate, Job, Outcome
from kornia_ditf.study.store.cache import content_key

_FILE = "costs.jsonl"


@dataclass(frozen=True, slots=True)
class Cost:
    """Median costs of a configuration.

    Args:
        seconds_per_image: median of describing one image; None where nothing was measured.
        together: how many configurations that forward pass served.
        seconds_per_pair: median of reading two maps and scoring a pair.
        bytes_per_image: of a descriptor map, the median.
    """

    seconds_per_image: float | None = None
    together: int = 1
    seconds_per_pair: float | None = None
    bytes_per_image: float | None = None


class CostLog:
    """A file of JSON lines; torn lines are skipped."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / _FILE

    def add(self, job: Job, outcome: Outcome) -> None:
        """Append the cost of a job; a failure to write is ignored."""
        values: dict[str, Any] = {"seconds": [round(each, 6) for each in outcome.seconds]}
        if isinstance(job, Describe):
            labels = {label for _, _, keys in job.images for label in keys}
            identities = sorted({cost_key(job.identities[label]) for label in labels})
            values |= {"what": "describe", "identities": identities, "bytes": outcome.bytes}
        elif isinstance(job, Evaluate):
            values |= {"what": "evaluate", "identity": cost_key(job.identity)}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(values))
        except OSError:
            return

    def read(self) -> Mapping[str, Cost]:
        """Return costs by `cost_key` of a configuration's identity."""
        described: dict[str, list[tuple[float, int, float]]] = {}
        scored: dict[str, list[float]] = {}
        for line in self._lines():
            try:
                seconds = [float(each) for each in line["seconds"]]
                if line["what"] == "describe":
                    for identity in line["identities"]:
                        rows = [(s, len(line["identities"]), float(line["bytes"])) for s in seconds]
                        described.setdefault(identity, []).extend(rows)
                else:
                    scored.setdefault(line["identity"], []).extend(seconds)
            except (KeyError, TypeError, ValueError):
                continue
        return {
            identity: Cost(
                seconds_per_image=_median([row[0] for row in described.get(identity, [])]),
                together=max((row[1] for row in described.get(identity, [])), default=1),
                seconds_per_pair=_median(scored.get(identity, [])),
                bytes_per_image=_median([row[2] for row in described.get(identity, [])]),
            )
            for identity in {*described, *scored}
        }

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self.path.read_text("utf-8", errors="replace")
        except OSError:
            return []
        found = []
        for line in text.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found


def known_costs(folder: Path, summary: Mapping[str, Any]) -> dict[str, Cost]:
    """Return what a study's folder or bundle knows of costs, by `cost_key` of identities."""
    names = {field.name for field in fields(Cost)}
    written = {
        key: Cost(**{name: value for name, value in costs.items() if name in names})
        for key, costs in summary.get("costs", {}).items()
    }
    return {**written, **CostLog(folder).read()}


def cost_key(identity: str) -> str:
    """Return a short digest of an identity."""
    return content_key(identity=identity)[:16]


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
