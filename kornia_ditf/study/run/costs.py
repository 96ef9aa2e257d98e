"""A log of what jobs cost, and its medians.

Times are kept apart from records, which must not depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from kornia_ditf.study.define.jobs import Compare, Describe, Evaluate, Job, Outcome
from kornia_ditf.study.store.cache import content_key

_FILE = "costs.jsonl"


def _kind(
    summarise: Callable[[list[float]], float],
    heading: str,
    key: str | None = None,
    unit: float = 1,
    *,
    default: int | None = None,
) -> Any:
    kind = {"summarise": summarise, "heading": heading, "key": key, "unit": unit}
    return field(default=default, metadata=kind)


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs of a configuration, each with how measurements are summarised and what tables call it.

    Args:
        seconds_per_image: median of describing one image, or of extracting a matcher's features;
            None where nothing was measured.
        together: how many configurations that forward pass served.
        seconds_per_pair: median of reading two maps and scoring a pair, or of matching one.
        bytes_per_image: of a descriptor map, the median.
        peak_bytes: the largest resident memory of the process while it did it; None where the
            system does not tell it (see `Meter`).
        device_peak_bytes: the most memory allocated on the accelerator.
        flops: of the first image that was described, or the first pair that was matched.
        joules: that the accelerator took for an image, or for a pair, on average.
    """

    seconds_per_image: float | None = _kind(median, "s per image")
    together: int = _kind(max, "configurations per forward", default=1)
    seconds_per_pair: float | None = _kind(median, "s per pair")
    bytes_per_image: float | None = _kind(median, "cache per image, MB", "cache_mb", 1e-6)
    peak_bytes: float | None = _kind(max, "peak memory, GB", "peak_gb", 1e-9)
    device_peak_bytes: float | None = _kind(max, "peak on device, GB", "device_gb", 1e-9)
    flops: float | None = _kind(max, "GFLOP", "gflop", 1e-9)
    joules: float | None = _kind(fmean, "joules")


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
        found: dict[str, dict[str, list[float]]] = {}
        for line in text.splitlines():
            with suppress(KeyError, TypeError, ValueError):  # it is torn
                values = json.loads(line)
                several = values["what"] == "describe"
                for identity in values["identities"] if several else [values["identity"]]:
                    for name, measured in _measurements(values, identity).items():
                        found.setdefault(identity, {}).setdefault(name, []).extend(measured)
        return {identity: _summarised(known) for identity, known in found.items()}


def _measurements(values: Mapping[str, Any], identity: str) -> dict[str, list[float]]:
    """Return what a line of the log says of an identity, by the names of `Cost`'s fields."""
    seconds = [float(each) for each in values["seconds"]]
    share = float(values.get("shares", {}).get(identity, 1.0))
    found = {n: [float(values[n])] for n in ("peak_bytes", "device_peak_bytes") if n in values}
    if "flops" in values:
        found["flops"] = [share * values["flops"]]
    if "joules" in values and seconds:
        found["joules"] = [values["joules"] / len(seconds)] * len(seconds)
    if values["what"] == "describe":
        found["seconds_per_image"] = [share * each for each in seconds]
        found["bytes_per_image"] = [float(values["bytes"])] * len(seconds)
        found["together"] = [len(values["identities"])]
    else:
        found["seconds_per_image"] = [float(each) for each in values.get("image_seconds", ())]
        found["seconds_per_pair"] = seconds
    return found


def _summarised(known: Mapping[str, list[float]]) -> Cost:
    kinds = [each for each in fields(Cost) if known.get(each.name)]
    return Cost(**{each.name: each.metadata["summarise"](known[each.name]) for each in kinds})


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
    """Identify what scores pairs: the descriptor, and the joint PCA, if any."""
    return f"{identity} pca={json.dumps(pca)}" if pca else identity


def cost_key(identity: str) -> str:
    """Return a short digest of an identity."""
    return content_key(identity=identity)[:16]
