"""Configurations, data sets and protocols in; the cells of a study, rows of its tables, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.study.define.forwards import map_key, prompt_for, records_key
from kornia_ditf.study.define.listing import Item, ListedSet
from kornia_ditf.study.define.spec import Configuration, Study
from kornia_ditf.study.run.preparation import Prepared, Task


@dataclass(frozen=True, slots=True)
class Cell:
    """One configuration on one data set by one protocol.

    Args:
        configuration: what describes.
        identity: names all that decides its descriptors.
        channels: massive channels that it discards; None where it discards none.
        task: place, among the tasks, of the one that describes for it.
        listed: the data set.
        protocol: how it is scored.
        items: what of it is scored, in its order.
        folder: of its records.
    """

    configuration: Configuration
    identity: str
    channels: tuple[int, ...] | None
    task: int
    listed: ListedSet
    protocol: Protocol
    items: tuple[Item, ...]
    folder: Path

    def images(self, item: Item) -> list[tuple[str, str | None, str]]:
        """Give of each image of an item the path, the prompt and the key of its map."""
        template = self.configuration.settings.get("prompt")
        found = []
        for path, digest, label in item.images:
            prompt = prompt_for(template, label)
            found.append((path, prompt, map_key(self.identity, digest, prompt, self.protocol.fit)))
        return found


def lay_out_cells(
    study: Study,
    sets: Sequence[ListedSet],
    tasks: Sequence[Task],
    prepared: Sequence[Prepared],
    records: Path,
) -> list[Cell]:
    """List a study's cells in the order of its tables: by data set, protocol, configuration."""
    found: dict[tuple[str, int, str], Cell] = {}
    for place, (task, known) in enumerate(zip(tasks, prepared, strict=True)):
        listed = sets[task.place]
        for configuration in task.group.members:
            member = known.members[configuration.label]
            identity = f"{member.identity} {study.cache_dtype}"
            for protocol, items in listed.protocols:
                if protocol.fit == task.fit:
                    key = records_key(identity, configuration.settings.get("prompt"), protocol)
                    found[configuration.label, task.place, protocol.name] = Cell(
                        configuration=configuration,
                        identity=identity,
                        channels=member.channels,
                        task=place,
                        listed=listed,
                        protocol=protocol,
                        items=items,
                        folder=records / key,
                    )
    return [
        found[configuration.label, place, protocol.name]
        for place, listed in enumerate(sets)
        for protocol, _ in listed.protocols
        for configuration in study.configurations()
    ]
