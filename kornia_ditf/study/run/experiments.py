"""The experiments of a study: a row of a table each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.matching.joint import check_pca
from kornia_ditf.matching.poses import POSES, UPRIGHT
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.registry.lookup import find_descriptor
from kornia_ditf.study.define.forwards import map_key, prompt_for, records_key
from kornia_ditf.study.define.listing import ListedSet, Sample
from kornia_ditf.study.define.spec import Configuration, Study
from kornia_ditf.study.run.preparation import Prepared, Task


@dataclass(frozen=True, slots=True)
class Experiment:
    """One configuration, evaluated on one data set by one protocol.

    Args:
        configuration: what describes.
        identity: names all that decides its descriptors.
        channels: massive channels that it discards; None where it discards none.
        task: place, among the tasks, of the one that describes for it.
        listed: the data set.
        protocol: how it is scored.
        pca: joint PCA of each pair's tokens; 0 for none.
        samples: what of it is scored, in its order.
        folder: of its records.
        device: where it was described.
    """

    configuration: Configuration
    identity: str
    channels: tuple[int, ...] | None
    task: int
    listed: ListedSet
    protocol: Protocol
    pca: int | tuple[int, ...]
    samples: tuple[Sample, ...]
    folder: Path
    device: str

    @property
    def cell(self) -> tuple[str, str, str]:
        """Labels of the configuration and the data set, and the protocol's name."""
        return self.configuration.label, self.listed.label, self.protocol.name

    def images(self, sample: Sample) -> list[tuple[str, str | None, str, str]]:
        """Return path, prompt, pose and map key of each image of a sample, A in all its poses."""
        template = self.configuration.settings.get("prompt")
        found = []
        for place, (path, digest, label) in enumerate(sample.images):
            prompt = prompt_for(template, label)
            for pose in POSES[self.protocol.align] if place == 0 else (UPRIGHT,):
                key = map_key(self.identity, digest, prompt, self.protocol.fit, pose)
                found.append((path, prompt, pose, key))
        return found


def list_experiments(
    study: Study,
    sets: Sequence[ListedSet],
    tasks: Sequence[Task],
    prepared: Sequence[Prepared],
    records: Path,
) -> list[Experiment]:
    """List a study's experiments by data set, protocol and configuration."""
    found: dict[tuple[str, int, str], Experiment] = {}
    for place, (task, known) in enumerate(zip(tasks, prepared, strict=True)):
        listed = sets[task.place]
        for configuration in task.group.members:
            member = known.members[configuration.label]
            identity = f"{member.identity} {study.cache_dtype}"
            for protocol, samples in listed.protocols:
                if protocol.fit == task.fit:
                    pca = _pca_of(configuration, protocol)
                    scoring = replace(protocol, pca=pca)
                    key = records_key(identity, configuration.settings.get("prompt"), scoring)
                    found[configuration.label, task.place, protocol.name] = Experiment(
                        configuration=configuration,
                        identity=identity,
                        channels=member.channels,
                        task=place,
                        listed=listed,
                        protocol=protocol,
                        pca=pca,
                        samples=samples,
                        folder=records / key,
                        device=known.device,
                    )
    return [
        found[configuration.label, place, protocol.name]
        for place, listed in enumerate(sets)
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
