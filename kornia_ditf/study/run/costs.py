"""A log of what jobs cost, and its medians.

Times are kept apart from records, which must not depend on them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from kornia_ditf.study.define.jobs import Compare, Describe, Evaluate, Job, Outcome
from kornia_ditf.study.store.cache import content_key

_FILE = "costs.jsonl"


@dataclass(frozen=True, slots=True)
class Cost:
    """Median costs of a configuration.

    Args:
        seconds_per_image: median of describing one image, or of extracting a matcher's features;
            None where nothing was measured.
        together: how many configurations that forward pass served.
        seconds_per_pair: median of reading two maps and scoring a pair, or of matching one.
        bytes_per_image: of a descriptor map, the median.
        peak_bytes: the largest resident memory of the process that did it.
        device_peak_bytes: the most memory allocated on the accelerator.
        flops: of the first image that was described, or the first pair that was matched.
        joules: that the accelerator took for an image, or for a pair, on average.
    """

    seconds_per_image: float | None = None
    together: int = 1
    seconds_per_pair: float | None = None
    bytes_per_image: float | None = None
    peak_bytes: float | None = None
    device_peak_bytes: float | None = None
    flops: float | None = None
    joules: float | None = None


_LARGEST = ("peak_bytes", "device_peak_bytes", "flops")


class CostLog:
    """A file of JSON lines; torn lines are skipped."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / _FILE

    def add(self, job: Job, outcome: Outcome) -> None:
        """Append the cost of a job; a failure to write is ignored."""
        values: dict[str, Any] = {
            "seconds": [round(each, 6) for each in outcome.seconds],
            **outcome.costs,
        }
        if isinstance(job, Describe):
            labels = {label for *_, keys in job.images for label in keys}
            identities = sorted({cost_key(job.identities[label]) for label in labels})
            values |= {"what": "describe", "identities": identities, "bytes": outcome.bytes}
            shares = {cost_key(job.identities[n]): each for n, each in outcome.shares.items()}
            values |= {"shares": shares} if set(shares.values()) - {1.0} else {}
        elif isinstance(job, Evaluate | Compare):
            values |= {"what": "evaluate", "identity": cost_key(job.identity)}
        if isinstance(job, Compare):
            values["image_seconds"] = [round(each, 6) for each in outcome.image_seconds]
        with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(values))

    def read(self) -> Mapping[str, Cost]:
        """Return costs by `cost_key` of a configuration's identity."""
        try:
            text = self.path.read_text("utf-8", errors="replace")
        except OSError:
            return {}
        found: dict[str, _Measured] = defaultdict(_Measured)
        for line in text.splitlines():
            with suppress(KeyError, TypeError, ValueError):  # it is torn
                values = json.loads(line)
                seconds = [float(each) for each in values["seconds"]]
                described = values["what"] == "describe"
                for identity in values["identities"] if described else [values["identity"]]:
                    found[identity].add(identity, values, seconds, described=described)
        return {identity: known.cost() for identity, known in found.items()}


@dataclass(slots=True)
class _Measured:
    """All that the log holds of one identity."""

    images: list[float] = field(default_factory=list)
    pairs: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)
    together: int = 1
    metered: int = 0

    def add(
        self, identity: str, values: Mapping[str, Any], seconds: list[float], *, described: bool
    ) -> None:
        share = float(values.get("shares", {}).get(identity, 1.0))
        if described:
            self.images += [share * each for each in seconds]
            self.bytes += [float(values["bytes"])] * len(seconds)
            self.together = max(self.together, len(values["identities"]))
        else:
            self.images += [float(each) for each in values.get("image_seconds", ())]
            self.pairs += seconds
        for name in _LARGEST:
            if name in values:
                value = values[name] * (share if name == "flops" else 1.0)
                self.largest[name] = max(value, self.largest.get(name, 0.0))
        if "joules" in values:
            self.joules.append(float(values["joules"]))
            self.metered += len(seconds)

    def cost(self) -> Cost:
        return Cost(
            seconds_per_image=_median(self.images),
            together=self.together,
            seconds_per_pair=_median(self.pairs),
            bytes_per_image=_median(self.bytes),
            joules=sum(self.joules) / self.metered if self.metered else None,
            **self.largest,
        )


def known_costs(folder: Path, summary: Mapping[str, Any]) -> dict[str, Cost]:
    """Return what a study's folder or bundle knows of costs, by `cost_key` of identities."""
    names = {each.name for each in fields(Cost)}
    written = {
        key: Cost(**{name: value for name, value in costs.items() if name in names})
        for key, costs in summary.get("costs", {}).items()
    }
    return {**written, **CostLog(folder).read()}


def cost_of(experiment: Mapping[str, Any], costs: Mapping[str, Cost]) -> Cost:
    """Return an experiment's costs; the maps of several widths of joint PCA are the same."""
    identity, pca = experiment["identity"], experiment["settings"].get("pca")
    found = costs.get(cost_key(identity), Cost())
    if not pca:
        return found
    scored = costs.get(cost_key(scoring_identity(identity, pca)), Cost())
    return replace(found, seconds_per_pair=scored.seconds_per_pair)


def scoring_identity(identity: str, pca: Any) -> str:
    """Name what scores pairs: the descriptor, and the joint PCA where there is one."""
    return f"{identity} pca={json.dumps(pca)}" if pca else identity


def cost_key(identity: str) -> str:
    """Return a short digest of an identity."""
    return content_key(identity=identity)[:16]


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
