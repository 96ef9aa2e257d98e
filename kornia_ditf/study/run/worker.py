"""The worker that runs jobs, in this process or another."""

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
from kornia_ditf.errors import DamagedFileError, DiTFError, OutputError
from kornia_ditf.massive import ChannelRecorder
from kornia_ditf.protocols.evaluate import evaluate_pair
from kornia_ditf.protocols.fitting import prepare_image
from kornia_ditf.protocols.protocol import Fit, Protocol
from kornia_ditf.protocols.sequences import evaluate_sequence
from kornia_ditf.registry.lookup import create_descriptor
from kornia_ditf.study.define.forwards import ForwardGroup, member_config
from kornia_ditf.study.define.jobs import Describe, Evaluate, Job, Outcome, Prepare, Setup
from kornia_ditf.study.define.listing import open_dataset
from kornia_ditf.study.define.spec import Configuration, DatasetChoice
from kornia_ditf.study.store.cache import MapCache, MapReader
from kornia_ditf.study.store.records import pair_row, sequence_row, write_part
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import read_dtype


class Worker:
    """Runs jobs one after another; keeps one descriptor and one data set loaded.

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

    def do(self, job: Job) -> Outcome:
        """Run a job; images and pairs that fail are part of its outcome."""
        with torch.no_grad():
            if isinstance(job, Prepare):
                return self._prepare(job)
            if isinstance(job, Describe):
                return self._describe(job)
            return self._evaluate(job)

    def _prepare(self, job: Prepare) -> Outcome:
        descriptor = self._descriptor(job.group)
        members: dict[str, Any] = {}
        channels, doubts = self._find_channels(job) if isinstance(descriptor, DiTF) else ({}, {})
        for member in job.group.members:
            named = self._member(descriptor, member, job.fit, channels.get(member.label))
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
        self, job: Prepare
    ) -> tuple[dict[str, tuple[int, ...] | None], dict[str, tuple[str, ...]]]:
        """Find the massive channels of members that know none, and the doubts about them."""
        configs = {m.label: member_config(m, job.fit) for m in job.group.members}
        unknown = {
            config.block
            for config in configs.values()
            if "discard" in config.treatment and config.massive_channels is None
        }
        recorders = {block: ChannelRecorder() for block in sorted(unknown)}
        ditf: Any = self._descriptor(job.group)
        for path in job.images if unknown else ():
            shared = DiTF(ditf.backbone, configs[job.group.members[0].label])
            taps, _ = shared.taps(prepare_image(path, job.fit), list(recorders))
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

    def _describe(self, job: Describe) -> Outcome:
        outcome, sizes = Outcome(), []
        try:
            descriptor = self._descriptor(job.group)
        except DiTFError as error:
            names = ", ".join(member.label for member in job.group.members)
            return Outcome(failures=[f"{names}: {error}"])
        for path, prompt, keys in job.images:
            begin = time.perf_counter()
            try:
                for label, described in self._maps_of(descriptor, job, path, prompt, keys):
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
        job: Describe,
        path: str,
        prompt: str | None,
        labels: Iterable[str],
    ) -> Iterable[tuple[str, DescriptorMap]]:
        members = {member.label: member for member in job.group.members}
        image = prepare_image(path, job.fit)
        if not isinstance(descriptor, DiTF):
            described = descriptor(image, prompt)
            yield from ((label, described) for label in labels)
            return
        configs = {label: member_config(members[label], job.fit) for label in labels}
        shared = DiTF(descriptor.backbone, next(iter(configs.values())))
        blocks = sorted({config.block for config in configs.values()})
        taps, frame = shared.taps(image, blocks, prompt)
        for label, config in configs.items():
            channels = job.channels.get(label) or ()
            yield label, describe_tap(taps[config.block], frame, config.treatment, channels)

    def _evaluate(self, job: Evaluate) -> Outcome:
        if self._dataset is None or self._dataset[0] != job.dataset:
            self._dataset = job.dataset, open_dataset(job.dataset)
        outcome, rows = Outcome(), []
        dataset = self._dataset[1]
        for index, key, maps in job.pairs:
            begin = time.perf_counter()
            try:
                row = self._score(dataset[index], maps, job.protocol, dataset.root)
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
            write_part(Path(job.folder), rows)
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

    def _descriptor(self, group: ForwardGroup) -> DenseDescriptor:
        """Return a group's descriptor, loading it unless it is the current one."""
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
