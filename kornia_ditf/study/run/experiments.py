"""The experiments of a study: a row of a table each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from kornia_ditf.errors import DiTFError
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.matching.joint import check_pca
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.registry.lookup import ask_plugins, find_descriptor
from kornia_ditf.registry.matchers import find_matcher
from kornia_ditf.study.define.forwards import map_key, records_key
from kornia_ditf.study.define.listing import ListedSet, Sample, file_digest
from kornia_ditf.study.define.spec import Configuration, MatcherChoice, Study
from kornia_ditf.study.run.preparation import Prepared, Task
from kornia_ditf.utils.opencv import DISTRIBUTIONS
from kornia_ditf.utils.provenance import versions

_LIBRARIES = ("kornia-ditf", "torch", "kornia", "vismatch", *DISTRIBUTIONS)


class TableCell(NamedTuple):
    """Where an experiment stands: labels of its row and data set, and its protocol's name."""

    descriptor: str
    dataset: str
    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment(ABC):
    """A descriptor or matcher, evaluated on one data set by one protocol.

    Args:
        label: what tables call the descriptor or matcher.
        identity: names all that decides its descriptors or matches.
        listed: the data set.
        protocol: how it is scored.
        samples: what of it is scored, in its order.
        folder: of its records.
        about: what study.json holds of the descriptor or matcher, but its license.
    """

    label: str
    identity: str
    listed: ListedSet
    protocol: Protocol
    samples: tuple[Sample, ...]
    folder: Path
    about: Mapping[str, Any]

    @property
    def cell(self) -> TableCell:
        """Where it stands in the tables."""
        return TableCell(self.label, self.listed.label, self.protocol.name)

    @property
    @abstractmethod
    def license(self) -> str:
        """Of the descriptor's or matcher's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatcherExperiment(Experiment):
    """An experiment of a matcher; `matcher` is what the study says of it."""

    matcher: MatcherChoice

    @property
    def license(self) -> str:
        return find_matcher(self.matcher.name).license


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorExperiment(Experiment):
    """An experiment of a descriptor.

    Args:
        configuration: what describes.
        task: place, among the tasks, of the one that describes for it.
        channels: massive channels that it discards; None where it discards none.
        pca: joint PCA of each pair's tokens; 0 for none.
        device: where it was described.
    """

    configuration: Configuration
    task: int
    channels: tuple[int, ...] | None
    pca: int | tuple[int, ...]
    device: str

    @property
    def license(self) -> str:
        options = hub_options(self.configuration.settings)
        return find_descriptor(self.configuration.name, **options).license

    def images(self, sample: Sample) -> list[tuple[str, str | None, str, str]]:
        """Return path, prompt, pose and map key of each image of a sample, A in all its poses."""
        template, fit = self.configuration.settings.get("prompt"), self.protocol.fit
        return [
            (path, prompt, pose, map_key(self.identity, digest, prompt, fit, pose))
            for path, digest, prompt, pose in sample.views(template, self.protocol.align)
        ]


def list_experiments(
    study: Study,
    sets: Sequence[ListedSet],
    tasks: Sequence[Task],
    prepared: Sequence[Prepared],
    records: Path,
) -> list[DescriptorExperiment]:
    """List the experiments of descriptors by data set, protocol and configuration."""
    found: dict[tuple[str, str, str], DescriptorExperiment] = {}
    for place, (task, known) in enumerate(zip(tasks, prepared, strict=True)):
        listed = sets[task.place]
        scored = [each for each in listed.protocols if each[0].fit == task.fit]
        for configuration, (protocol, samples) in product(task.group.members, scored):
            member = known.members[configuration.label]
            settings = dict(configuration.settings)
            identity = f"{member.identity} {study.cache_dtype}"
            pca = _pca_of(configuration, protocol)
            if pca:
                settings["pca"] = pca
            prompt = settings.get("prompt")
            experiment = DescriptorExperiment(
                label=configuration.label,
                identity=identity,
                listed=listed,
                protocol=protocol,
                samples=samples,
                folder=records / records_key(identity, prompt, replace(protocol, pca=pca)),
                configuration=configuration,
                task=place,
                channels=member.channels,
                pca=pca,
                device=known.device,
                about={
                    "name": configuration.name,
                    "source": configuration.source,
                    "settings": settings,
                    "identity": identity,
                    "channels": member.channels,
                    "calibrated_on": [
                        Path(path).name
                        for path, _ in (listed.calibration if member.channels else ())
                    ],
                    "width": member.width,
                    "bytes_held": known.bytes_held,
                    "device": known.device,
                    "forward_shared_by": [each.label for each in task.group.members],
                },
            )
            found[experiment.cell] = experiment
    return [
        found[configuration.label, listed.label, protocol.name]
        for listed in sets
        for protocol, _ in listed.protocols
        for configuration in study.configurations()
    ]


def _pca_of(configuration: Configuration, protocol: Protocol) -> int | tuple[int, ...]:
    """Return the joint PCA that the study says, or the protocol, or the descriptor's preset."""
    if "pca" in configuration.settings:
        return check_pca(configuration.settings["pca"])
    if protocol.pca or protocol.task == "masks":
        return protocol.pca
    spec = find_descriptor(configuration.name, **hub_options(configuration.settings))
    return check_pca(getattr(spec, "pca", 0))


def list_matcher_experiments(
    study: Study, sets: Sequence[ListedSet], records: Path
) -> list[MatcherExperiment]:
    """List the experiments of matchers by data set, protocol and matcher."""
    identities = {choice.shown: matcher_identity(choice) for choice in study.matchers}
    return [
        MatcherExperiment(
            label=choice.shown,
            identity=identities[choice.shown],
            listed=listed,
            protocol=protocol,
            samples=samples,
            folder=records / records_key(identities[choice.shown], None, protocol),
            matcher=choice,
            about={
                "name": choice.name,
                "source": None,
                "settings": dict(choice.options),
                "identity": identities[choice.shown],
                "channels": None,
                "calibrated_on": [],
                "width": None,
                "bytes_held": 0,
                "device": str(choice.options.get("device", "cpu")),
                "forward_shared_by": [choice.shown],
            },
        )
        for listed in sets
        for protocol, samples in listed.protocols
        for choice in study.matchers
    ]


def matcher_identity(choice: MatcherChoice) -> str:
    """Identify what affects a matcher's matches: options, including files, and versions."""
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
