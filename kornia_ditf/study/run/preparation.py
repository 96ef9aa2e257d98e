"""Identities and massive channels of configurations, found before images are described.

An identity names all that decides a descriptor's numbers. Where channels are to be discarded and
nobody says which, they are found once in a few images of the data set, and written down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.loading.checkpoint import Checkpoint, hub_options
from kornia_ditf.projection.stored import Projection
from kornia_ditf.protocols.protocol import Fit
from kornia_ditf.registry.lookup import find_descriptor
from kornia_ditf.study.define.forwards import ForwardGroup
from kornia_ditf.study.define.jobs import Prepare
from kornia_ditf.study.define.listing import ListedSet
from kornia_ditf.study.run.engines import Engine
from kornia_ditf.study.store.cache import content_key
from kornia_ditf.utils.cache import is_sound, write_checked

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Task:
    """A group on one data set, by its place in the study, whose images are fitted in one way."""

    group: ForwardGroup
    place: int
    fit: Fit


@dataclass(frozen=True, slots=True)
class Member:
    """A configuration, once its weights were loaded.

    Args:
        identity: names all that decides its numbers.
        channels: massive channels that it discards; None where it discards none.
        width: channels of its descriptors.
    """

    identity: str
    channels: tuple[int, ...] | None
    width: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task, once its weights were loaded: its members by label, and what holds the weights."""

    members: dict[str, Member]
    bytes_held: int
    device: str


def tasks_of(groups: Iterable[ForwardGroup], sets: Sequence[ListedSet]) -> list[Task]:
    """List tasks in an order in which each descriptor is loaded once."""
    return [
        Task(group, place, fit)
        for group in groups
        for place, listed in enumerate(sets)
        for fit in dict.fromkeys(protocol.fit for protocol, _ in listed.protocols)
    ]


def prepare(
    tasks: Sequence[Task],
    sets: Sequence[ListedSet],
    engine: Engine,
    folder: Path,
    *,
    device: str | None = None,
    warn: Warn = lambda message: None,
) -> list[Prepared]:
    """Prepare every task, or read it from `folder` where it was prepared before.

    Args:
        tasks: what to prepare.
        sets: the data sets.
        engine: loads the descriptors.
        folder: where findings are kept.
        device: where descriptors run, if not where the study says.
        warn: is told of what a reader of the results should know.

    Raises:
        DiTFError: a descriptor cannot be loaded.
    """
    paths = [folder / f"{_key(task, sets[task.place], device)}.json" for task in tasks]
    missing = {
        path: Prepare(
            task.group,
            task.fit,
            tuple(image for image, _ in sets[task.place].calibration),
            str(path),
        )
        for task, path in zip(tasks, paths, strict=True)
        if _fingerprint(task.group) is None or not is_sound(path)
    }
    for job, outcome in engine.outcomes(missing.values()):
        assert isinstance(job, Prepare)
        with write_checked(Path(job.path)) as temporary:
            temporary.write_text(json.dumps(outcome.values, indent=1), "utf-8")
    return [_read(task, path, warn) for task, path in zip(tasks, paths, strict=True)]


def _read(task: Task, path: Path, warn: Warn) -> Prepared:
    """Read what was found out, and add to identities what they depend on besides."""
    values = json.loads(path.read_text("utf-8"))
    place = torch.device(values["device"]).type
    environment = f"kornia-ditf {version('kornia-ditf')} torch {torch.__version__} {place}"
    members = {}
    for member in task.group.members:
        found = values["members"][member.label]
        identity, channels = found["identity"], found["channels"]
        if identity is None:
            # It is cached all the same, within the study: without that nothing could be resumed.
            identity = f"unnamed {member.name} {member.source} {sorted(member.settings.items())}"
            warn(
                f"{member.label} does not say which weights it has; if they change, remove the "
                "study's folder before you run it again"
            )
        for doubt in found["doubts"]:
            warn(f"{member.label}: {doubt}")
        members[member.label] = Member(
            identity=f"{identity} {environment}",
            channels=None if channels is None else tuple(channels),
            width=found["width"],
        )
    return Prepared(members, values["bytes_held"], values["device"])


def _key(task: Task, listed: ListedSet, device: str | None) -> str:
    group = task.group
    files = [member.settings.get("projection") for member in group.members]
    members = [(member.label, sorted(member.settings.items())) for member in group.members]
    return content_key(
        weights=[group.weights, _fingerprint(group)],
        members=members,
        projections=[None if file is None else Projection.load(file).digest for file in files],
        fit=str(task.fit),
        images=[digest for _, digest in listed.calibration],
        device=device,
        versions=[version("kornia-ditf"), torch.__version__],
    )


def _fingerprint(group: ForwardGroup) -> str | None:
    """Return the identity of weights in a folder; None if it is known only after loading."""
    spec = find_descriptor(group.name, **hub_options(group.loading))
    place = group.source or spec.repo
    if not isinstance(spec, BackboneSpec) or not Path(place).expanduser().is_dir():
        return None
    return Checkpoint(place, **hub_options(group.loading)).identity
