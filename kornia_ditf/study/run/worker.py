"""A piece of work in, files of the study's folder out; runs in this process or in any other."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kornia_ditf.datasets.pairs import Pair, PairDataset
from kornia_ditf.datasets.sequences import FrameSequence, SequenceDataset
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.descriptor import DiTF, describe_tap
from kornia_ditf.errors import DiTFError, OutputError
from kornia_ditf.massive import ChannelRecorder
from kornia_ditf.protocols.evaluate import evaluate_pair
from kornia_ditf.protocols.fitting import prepare_image
from kornia_ditf.protocols.protocol import Fit, Protocol
from kornia_ditf.protocols.sequences import evaluate_sequence
from kornia_ditf.registry.lookup import create_descriptor
from kornia_ditf.study.define.forwards import Group, member_config
from kornia_ditf.study.define.jobs import Describe, Evaluate, Outcome, Prepare, Setup, Unit
from kornia_ditf.study.define.listing import open_dataset
from kornia_ditf.study.define.spec import Configuration, DatasetChoice
from kornia_ditf.study.store.cache import DamagedFileError, MapCache, MapReader
from kornia_ditf.study.store.records import pair_row, sequence_row, write_part
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import read_dtype


class Worker:
    """Does units one after another; keeps one descriptor and one data set loaded.

    Args:
        setup: of the study.
        device: where to describe; None leaves it to the study's options.
    """

    def __init__(self, setup: Setup, device: str | None = None) -> None:
        self.cache = MapCache(Path(setup.cache), read_dtype(setup.dtype))
        self.device, self.reach = device, setup.reach
        self._maps = MapReader(self.cache)
        self._loaded: tuple[str, DenseDescriptor] | None = None
        self._dataset: tuple[DatasetChoice, PairDataset | SequenceDataset] | None = None

    def do(self, unit: Unit) -> Outcome:
        """Do a unit; what fails for a reason of its own is told, and the rest goes on."""
        with torch.no_grad():
            if isinstance(unit, Prepare):
                return self._prepare(unit)
            if isinstance(unit, Describe):
                return self._describe(unit)
            return self._evaluate(unit)

    def _prepare(self, unit: Prepare) -> Outcome:
        descriptor = self._descriptor(unit.group)
        members: dict[str, Any] = {}
        channels, doubts = self._find_channels(unit) if isinstance(descriptor, DiTF) else ({}, {})
        for member in unit.group.members:
            named = self._member(descriptor, member, unit.fit, channels.get(member.label))
            members[member.label] = {
                "identity": named.identity,
                "width": named.width,
                "channels": channels.get(member.label),
                "doubts": doubts.get(member.label, ()),
            }
        held = sum(value.nbytes for value in [*descriptor.parameters(), *descriptor.buffers()])
        place = next(descriptor.parameters(), torch.empty(0)).device
        return Outcome(values={"members": members, "bytes_held": held, "device": str(place)})

    def _find_channels(
        self, unit: Prepare
    ) -> tuple[dict[str, tuple[int, ...] | None], dict[str, tuple[str, ...]]]:
        """Find the massive channels of members that know none, and the doubts about them."""
        configs = {m.label: member_config(m, unit.fit) for m in unit.group.members}
        unknown = {
            config.block
            for config in configs.values()
            if "discard" in config.treatment and config.massive_channels is None
        }
        recorders = {block: ChannelRecorder() for block in sorted(unknown)}
        ditf: Any = self._descriptor(unit.group)
        for path in unit.images if unknown else ():
            shared = DiTF(ditf.backbone, configs[unit.group.members[0].label])
            taps, _ = shared.taps(prepare_image(path, unit.fit), list(recorders))
            for block, tap in taps.items():
                recorders[block].update(tap.x)
        measured = {block: recorder.compute() for block, recorder in recorders.items()}
        channels: dict[str, tuple[int, ...] | None] = {}
        doubts: dict[str, tuple[str, ...]] = {}
        for label, config in configs.items():
            channels[label] = config.massive_channels if "discard" in config.treatment else None
            if "discard" in config.treatment and config.massive_channels is None:
                channels[label] = measured[config.block].massive()
                doubts[label] = measured[config.block].doubts()
        return channels, doubts

    def _describe(self, unit: Describe) -> Outcome:
        outcome, sizes = Outcome(), []
        try:
            descriptor = self._descriptor(unit.group)
        except DiTFError as error:
            names = ", ".join(member.label for member in unit.group.members)
            return Outcome(failures=[f"{names}: {error}"])
        for path, prompt, keys in unit.images:
            begin = time.perf_counter()
            try:
                for label, described in self._maps_of(descriptor, unit, path, prompt, keys):
                    self.cache.write(keys[label], described)
                    sizes.append(self.cache.path(keys[label]).stat().st_size)
            except OutputError:  # the next image would meet the same full disk
                raise
            except DiTFError as error:
                outcome.failures.append(f"{path}: {error}")
                continue
            outcome.count += 1
            outcome.seconds.append(time.perf_counter() - begin)
        outcome.bytes = sum(sizes) / max(len(sizes), 1)
        return outcome

    def _maps_of(
        self,
        descriptor: DenseDescriptor,
        unit: Describe,
        path: str,
        prompt: str | None,
        labels: Iterable[str],
    ) -> Iterable[tuple[str, DescriptorMap]]:
        members = {member.label: member for member in unit.group.members}
        image = prepare_image(path, unit.fit)
        if not isinstance(descriptor, DiTF):
            described = descriptor(image, prompt)
            yield from ((label, described) for label in labels)
            return
        configs = {label: member_config(members[label], unit.fit) for label in labels}
        shared = DiTF(descriptor.backbone, next(iter(configs.values())))
        blocks = sorted({config.block for config in configs.values()})
        taps, frame = shared.taps(image, blocks, prompt)
        for label, config in configs.items():
            channels = unit.channels.get(label) or ()
            yield label, describe_tap(taps[config.block], frame, config.treatment, channels)

    def _evaluate(self, unit: Evaluate) -> Outcome:
        if self._dataset is None or self._dataset[0] != unit.dataset:
            self._dataset = unit.dataset, open_dataset(unit.dataset)
        outcome, rows = Outcome(), []
        dataset = self._dataset[1]
        for index, key, maps in unit.pairs:
            begin = time.perf_counter()
            try:
                row = self._score(dataset[index], maps, unit.protocol, dataset.root)
            except DamagedFileError as error:
                error.remove()
                outcome.damaged.append(str(error))
                continue
            except DiTFError as error:
                outcome.failures.append(f"pair {index}: {error}")
                continue
            rows.append({"key": key, **row})
            outcome.seconds.append(time.perf_counter() - begin)
        if rows:
            write_part(Path(unit.folder), rows)
        outcome.count = len(rows)
        return outcome

    def _score(
        self, item: Pair | FrameSequence, maps: Sequence[str], protocol: Protocol, root: Path
    ) -> dict[str, Any]:
        if isinstance(item, FrameSequence):
            keys = dict(zip(item.frames, maps, strict=True))
            result = evaluate_sequence(lambda path: self._maps(keys[path]), item, protocol)
            return sequence_row(item, result, root)
        found = evaluate_pair(self._maps(maps[0]), self._maps(maps[1]), item, protocol)
        return pair_row(item, found, root)

    def _descriptor(self, group: Group) -> DenseDescriptor:
        """Load a group's descriptor, unless it is the one that is loaded."""
        if self._loaded is None or self._loaded[0] != group.weights:
            self._loaded = None  # let go of the former before the next is held
            options = dict(group.loading)
            if group.weights in self.reach:
                options["block"] = self.reach[group.weights]
            if self.device is not None:
                options["device"] = self.device
            loaded = create_descriptor(group.name, source=group.source, **options)
            self._loaded = group.weights, loaded
        return self._loaded[1]

    def _member(
        self,
        descriptor: DenseDescriptor,
        member: Configuration,
        fit: Fit,
        channels: Sequence[int] | None,
    ) -> DenseDescriptor:
        if not isinstance(descriptor, DiTF):
            return descriptor
        config = member_config(member, fit)
        known = None if channels is None else tuple(channels)
        return DiTF(descriptor.backbone, replace(config, massive_channels=known))
