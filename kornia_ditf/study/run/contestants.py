"""The experiments of matchers: their records, and the cells of the table that failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kornia_ditf.errors import DiTFError
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.registry.lookup import ask_plugins
from kornia_ditf.registry.matchers import find_matcher
from kornia_ditf.study.define.forwards import records_key
from kornia_ditf.study.define.listing import ListedSet, Sample, file_digest
from kornia_ditf.study.define.spec import MatcherChoice, Study
from kornia_ditf.utils.opencv import DISTRIBUTIONS
from kornia_ditf.utils.provenance import versions

_LIBRARIES = ("kornia-ditf", "torch", "kornia", "vismatch", *DISTRIBUTIONS)


@dataclass(frozen=True, slots=True)
class MatcherExperiment:
    """One matcher, evaluated on one data set by one protocol.

    Args:
        matcher: what the study says of it.
        identity: names what decides its matches.
        listed: the data set.
        protocol: how it is scored.
        samples: pairs that are scored, in their order.
        folder: of its records.
    """

    matcher: MatcherChoice
    identity: str
    listed: ListedSet
    protocol: Protocol
    samples: tuple[Sample, ...]
    folder: Path

    @property
    def cell(self) -> tuple[str, str, str]:
        """Labels of the matcher and the data set, and the protocol's name."""
        return self.matcher.shown, self.listed.label, self.protocol.name


def list_matcher_experiments(
    study: Study, sets: Sequence[ListedSet], records: Path
) -> list[MatcherExperiment]:
    """List the experiments of a study's matchers by data set, protocol and matcher."""
    identities = {choice.shown: matcher_identity(choice) for choice in study.matchers}
    return [
        MatcherExperiment(
            matcher=choice,
            identity=identities[choice.shown],
            listed=listed,
            protocol=protocol,
            samples=samples,
            folder=records / records_key(identities[choice.shown], None, protocol),
        )
        for listed in sets
        for protocol, samples in listed.protocols
        for choice in study.matchers
    ]


def matcher_identity(choice: MatcherChoice) -> str:
    """Name what decides a matcher's matches: options, files among them, and versions."""
    plugins = {plugin.name: plugin.version for plugin in ask_plugins() if plugin.registered}
    parts = [
        f"matcher {choice.name}",
        *(f"{name}={_content(value)}" for name, value in sorted(choice.options.items())),
        *(f"{name} {version}" for name, version in versions(_LIBRARIES).items()),
        *(f"{name} {version}" for name, version in sorted(plugins.items()) if version),
    ]
    return ", ".join(part for part in parts if not part.endswith(" unknown"))


def _content(value: Any) -> str:
    try:
        path = Path(value) if isinstance(value, str) else None
        return str(value) if path is None or not path.is_file() else file_digest(path)
    except (DiTFError, OSError, ValueError):
        return str(value)


def failed_cells(
    reasons: Mapping[tuple[str, str, str], Sequence[str]],
    experiments: Sequence[MatcherExperiment],
) -> Iterator[dict[str, str]]:
    """Yield the cells of the table in which a matcher has no score, each with the reason.

    Args:
        reasons: by cell, what failed.
        experiments: those that lack records.
    """
    for experiment in experiments:
        told = list(dict.fromkeys(reasons.get(experiment.cell, ()))) or ["pairs were not matched"]
        more = f" (and {len(told) - 1} more reasons)" if len(told) > 1 else ""
        label, dataset, protocol = experiment.cell
        yield {
            "descriptor": label,
            "dataset": dataset,
            "protocol": protocol,
            "reason": f"{told[0]}{more}",
        }


def matcher_values(experiment: MatcherExperiment) -> dict[str, Any]:
    """Return what study.json holds of a matcher alone."""
    return {
        "name": experiment.matcher.name,
        "source": None,
        "settings": dict(experiment.matcher.options),
        "identity": experiment.identity,
        "channels": None,
        "calibrated_on": [],
        "width": None,
        "bytes_held": 0,
        "device": str(experiment.matcher.options.get("device", "cpu")),
        "forward_shared_by": [experiment.matcher.shown],
        "license": find_matcher(experiment.matcher.name).license,
    }
