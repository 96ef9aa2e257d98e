"""The worker that runs jobs, in this process or another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.config import DiTFConfig
from kornia_ditf.datasets.pairs import PairDataset
from kornia_ditf.datasets.sequences import SequenceDataset
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import DiTFError, OutputError
from kornia_ditf.matching.poses import UPRIGHT, view_in_pose
from kornia_ditf.matching.views import View
from kornia_ditf.preprocess import as_image
from kornia_ditf.projection.descriptor import ProjectedDescriptor
from kornia_ditf.protocols.fitting import prepare_image
from kornia_ditf.protocols.protocol import Fit
from kornia_ditf.registry.lookup import create_descriptor
from kornia_ditf.registry.upsamplers import find_upsampler
from kornia_ditf.study.define.forwards import ForwardGroup, member_config
from kornia_ditf.study.define.jobs import (
    Compare,
    Describe,
    Evaluate,
    Job,
    Outcome,
    Prepare,
    Setup,
)
from kornia_ditf.study.define.listing import open_dataset
from kornia_ditf.study.define.spec import Configuration, DatasetChoice
from kornia_ditf.study.run.apart import MatcherProcess
from kornia_ditf.study.run.cells import cells_of, describe_configs, measure_channels, shares_of
from kornia_ditf.study.run.scoring import match_job, score_job
from kornia_ditf.study.store.cache import MapCache, MapReader
from kornia_ditf.types import DescriptorMap
from kornia_ditf.types.prepared import PreparedImage
from kornia_ditf.upsamplers.descriptor import upsampled_identity
from kornia_ditf.utils.checks import read_dtype
from kornia_ditf.utils.measuring import Meter, count_flops
from kornia_ditf.utils.pipeline import readers, run_in_groups

Wanted = tuple[str, str | None, str, Mapping[str, str]]
"""An image's path, its prompt, its pose, and the keys of its maps by configuration."""


class Worker:
    """Runs jobs one after another; keeps one descriptor or matcher, and one data set, loaded.

    Args:
        setup: of the study.
        device: where to describe and score; None leaves it to the study's options.
    """

    def __init__(self, setup: Setup, device: str | None = None) -> None:
        self.cache = MapCache(Path(setup.cache), read_dtype(setup.dtype))
        self.device, self.reach = device, setup.reach
        self._maps = MapReader(self.cache)
        self._loaded: tuple[str, DenseDescriptor] | None = None
        self._counted: ForwardGroup | None = None
        self._matcher: MatcherProcess | None = None
        self._dataset: tuple[DatasetChoice, PairDataset | SequenceDataset] | None = None

    def do(self, job: Job) -> Outcome:
        """Run a job; images and pairs that fail are part of its outcome."""
        runs: dict[type, Callable[[Any], Outcome]] = {
            Prepare: self._prepare,
            Describe: self._describe,
            Evaluate: self._evaluate,
            Compare: self._compare,
        }
        with torch.no_grad():
            return runs[type(job)](job)

    def close(self) -> None:
        """End the process of the matcher, if there is one."""
        if self._matcher is not None:
            self._matcher.close()
        self._matcher = None

    def _prepare(self, job: Prepare) -> Outcome:
        descriptor = self._descriptor(job.group)
        members: dict[str, Any] = {}
        channels, doubts = self._find_channels(job) if isinstance(descriptor, DiTF) else ({}, {})
        for member in job.group.members:
            named = self._member(descriptor, member, job.fit, channels.get(member.label))
            upsampler = _upsampler(member.settings.get("upsample"))
            identity = named.identity
            if upsampler is not None:
                identity = upsampled_identity(identity, upsampler)
            members[member.label] = {
                "identity": identity,
                "width": named.width,
                "channels": channels.get(member.label),
                "doubts": doubts.get(member.label, ()),
            }
        held = sum(value.nbytes for value in [*descriptor.parameters(), *descriptor.buffers()])
        device = str(descriptor.place)
        return Outcome(values={"members": members, "bytes_held": held, "device": device})

    def _find_channels(
        self, job: Prepare
    ) -> tuple[dict[str, tuple[int, ...] | None], dict[str, tuple[str, ...]]]:
        """Find the massive channels of members that know none, and the doubts about them."""
        configs = {m.label: member_config(m, job.fit) for m in job.group.members}
        discarding = {label: config for label, config in configs.items() if config.steps.discards}
        unknown = [c for c in discarding.values() if c.massive_channels is None]
        ditf: Any = self._descriptor(job.group)
        shared = DiTF(ditf.backbone, next(iter(configs.values())))
        images = (shared.prepare(prepare_image(path, job.fit)) for path in job.images)
        cells = {cell for config in unknown for cell in cells_of(config)}
        measured = measure_channels(shared, images, cells)
        channels: dict[str, tuple[int, ...] | None] = dict.fromkeys(configs)
        doubts: dict[str, tuple[str, ...]] = {}
        for label, config in discarding.items():
            if config.massive_channels is not None:
                channels[label] = DiTF(ditf.backbone, config).massive_channels()
                continue
            # Those of any block and timestep are discarded at all.
            own = [measured[cell] for cell in cells_of(config)]
            channels[label] = tuple(sorted({c for each in own for c in each.massive()}))
            doubts[label] = tuple(dict.fromkeys(doubt for each in own for doubt in each.doubts()))
        return channels, doubts

    def _describe(self, job: Describe) -> Outcome:
        outcome, sizes = Outcome(), []
        try:
            descriptor = self._descriptor(job.group)
        except DiTFError as error:
            return Outcome(failures=[f"{', '.join(m.label for m in job.group.members)}: {error}"])
        wanted = {label for *_, keys in job.images for label in keys}
        members = {each.label: each for each in job.group.members if each.label in wanted}
        described_by = {
            label: self._member(descriptor, member, job.fit, job.channels.get(label) or ())
            for label, member in members.items()
        }
        meter = Meter(str(descriptor.place))
        begin = time.perf_counter()
        for (path, _, pose, keys), found in self._maps_of(descriptor, described_by, job, outcome):
            try:
                if isinstance(found, DiTFError):
                    raise found
                for label, described in found.items():  # one at a time: upsampled maps are large
                    upsampler = _upsampler(members[label].settings.get("upsample"))
                    if upsampler is not None:
                        norm = described_by[label].token_norm
                        image = _fitted(path, job.fit, pose)
                        described = upsampler(described, image, token_norm=norm)
                    self.cache.write(keys[label], described)
                    sizes.append(self.cache.path(keys[label]).stat().st_size)
            except OutputError:  # the disk is full for the others, too
                raise
            except DiTFError as error:
                outcome.failures.append(f"{path}: {error}")
                continue
            outcome.count += 1
            outcome.seconds.append(time.perf_counter() - begin)
            begin = time.perf_counter()
        outcome.costs |= meter.read()
        outcome.bytes = sum(sizes) / max(len(sizes), 1)
        return outcome

    def _maps_of(
        self,
        descriptor: DenseDescriptor,
        described_by: Mapping[str, DenseDescriptor],
        job: Describe,
        outcome: Outcome,
    ) -> Iterator[tuple[Wanted, dict[str, DescriptorMap] | DiTFError]]:
        """Describe the images of a job, each by the members, by label, that want it."""
        prepares = descriptor
        configs: dict[str, DiTFConfig] = {}
        if isinstance(descriptor, DiTF):  # all members see the same noisy image
            for label, each in described_by.items():
                ditf: Any = each.base if isinstance(each, ProjectedDescriptor) else each
                configs[label] = ditf.config
            outcome.shares = shares_of(configs)
            times = {t for config in configs.values() for t in config.all_timesteps}
            first = next(iter(configs.values()))
            prepares = DiTF(descriptor.backbone, replace(first, timesteps=tuple(times)))

        def read(wanted: Wanted) -> tuple[PreparedImage, str | None, tuple[str, ...]]:
            path, prompt, pose, keys = wanted
            with torch.no_grad():
                return prepares.prepare(_fitted(path, job.fit, pose)), prompt, tuple(keys)

        def describe(some: Sequence[Any]) -> list[dict[str, DescriptorMap]]:
            images, prompts, (labels, *_) = zip(*some, strict=True)
            if not isinstance(prepares, DiTF):
                maps = [described_by[name].describe_prepared(images, prompts) for name in labels]
                return [dict(zip(labels, each, strict=True)) for each in zip(*maps, strict=True)]
            known = {label: configs[label] for label in labels}
            described = describe_configs(prepares.backbone, known, images, prompts)
            for label in labels:
                project = described_by[label]
                if isinstance(project, ProjectedDescriptor):
                    for maps_of_image in described:
                        maps_of_image[label] = project.projection(maps_of_image[label])
            return described

        def run(some: Sequence[Any]) -> list[dict[str, DescriptorMap]]:
            if self._counted == job.group:
                return describe(some)
            self._counted = job.group  # once for each group: counting takes time
            found, flops = count_flops(lambda: describe(some))
            outcome.costs["flops"] = flops / len(some)
            return found

        return run_in_groups(
            job.images,
            read,
            run,
            lambda one: ((one[0].pixels.shape, one[2]), prepares.batch_of(one[0])),
            ahead=prepares.images_ahead(),
            workers=readers(prepares.place),
        )

    def _evaluate(self, job: Evaluate) -> Outcome:
        place = torch.device(self.device or job.device)
        return score_job(job, self._open(job.dataset), self._maps, place)

    def _compare(self, job: Compare) -> Outcome:
        if self._matcher is None or self._matcher.choice != job.matcher:
            self.close()
            self._loaded = None  # one model at a time
            self._matcher = MatcherProcess(job.matcher, self.device)
        return match_job(job, self._open(job.dataset), self._matcher)

    def _open(self, choice: DatasetChoice) -> PairDataset | SequenceDataset:
        if self._dataset is None or self._dataset[0] != choice:
            self._dataset = choice, open_dataset(choice)
        return self._dataset[1]

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
        if isinstance(descriptor, DiTF):
            config = member_config(member, fit)
            known = None if channels is None else tuple(channels)
            descriptor = DiTF(descriptor.backbone, replace(config, massive_channels=known))
        file = member.settings.get("projection")
        return descriptor if file is None else ProjectedDescriptor(descriptor, file)


def _fitted(path: str, fit: Fit, pose: str) -> Tensor:
    """Fit an image, mirrored or turned before as its pose says."""
    if pose == UPRIGHT:
        return prepare_image(path, fit)
    view = view_in_pose(View(as_image(path, upright=fit.upright)), pose)
    return prepare_image(view.image, fit)


_upsampler = lru_cache(maxsize=8)(find_upsampler)  # which keeps what it loads
