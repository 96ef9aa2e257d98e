"""Estimates of a study's forward passes, pairs, disk space and time, without loading weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import DiTFError
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.protocols.protocol import Fit
from kornia_ditf.registry.lookup import find_descriptor
from kornia_ditf.registry.upsamplers import find_upsampler
from kornia_ditf.study.define.forwards import (
    ForwardGroup,
    group_configurations,
    member_config,
    prompt_for,
)
from kornia_ditf.study.define.listing import ListedSet, list_study
from kornia_ditf.study.define.presets import preset_notes
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run.costs import CostLog
from kornia_ditf.study.run.preparation import Task, tasks_of
from kornia_ditf.utils.checks import read_dtype
from kornia_ditf.utils.images import read_size

_SECONDS_PER_PAIR = 0.1
_SECONDS_PER_MATCHED_PAIR = 2.0  # of a matcher, which nobody knows before it runs
_SIDE = 768  # of the matrices that this machine's speed is judged by


@dataclass(frozen=True, slots=True)
class ForwardPlan:
    """Estimate for the configurations of one forward pass.

    Args:
        descriptor: name of the descriptor.
        configurations: how many are served together.
        images: to be described, over all data sets and ways of fitting.
        forwards: noisy images that pass the model, calibration included.
        cache_bytes: of the maps.
        weights_bytes: held in memory; None where nobody knows before loading.
        seconds: of describing, by arithmetic; None where nobody knows.
    """

    descriptor: str
    configurations: int
    images: int
    forwards: int
    cache_bytes: int
    weights_bytes: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """Estimate for a study.

    Args:
        groups: by forward pass.
        configurations: how many there are, matchers among them.
        pairs: by data set and protocol, how many are scored for each configuration.
        seconds: of all together; None where nobody knows.
        measured: whether seconds come from an earlier run of the study, not from arithmetic.
        notes: where presets meet protocols that they were not published for.
    """

    groups: tuple[ForwardPlan, ...]
    configurations: int
    pairs: Mapping[str, int]
    seconds: float | None
    measured: bool
    notes: tuple[str, ...] = ()

    @property
    def scored(self) -> int:
        """Number of pairs scored, over all configurations."""
        return self.configurations * sum(self.pairs.values())


def plan_study(study: Study, out: Path | None = None) -> StudyPlan:
    """Estimate a study from its beginning.

    Args:
        study: what would run.
        out: a folder in which it ran before, for the times that were measured.

    Raises:
        InvalidArgumentError: a name or value in the study is wrong.
        DatasetError: a data set's files are missing or malformed.
    """
    sets = list_study(study)
    notes = tuple(preset_notes(study, sets))
    groups = group_configurations(study.configurations())
    tasks = tasks_of(groups, sets)
    speed = _operations_per_second()
    itemsize = read_dtype(study.cache_dtype).itemsize
    plans = tuple(
        _plan_group(group, [task for task in tasks if task.group is group], sets, itemsize, speed)
        for group in groups
    )
    pairs = {
        f"{listed.label}, {protocol.name}": len(samples)
        for listed in sets
        for protocol, samples in listed.protocols
    }
    costs = [] if out is None else list(CostLog(out).read().values())
    images = [cost.seconds_per_image for cost in costs if cost.seconds_per_image is not None]
    scoring = [cost.seconds_per_pair for cost in costs if cost.seconds_per_pair is not None]
    count = len(study.configurations()) + len(study.matchers)
    scored = count * sum(pairs.values())
    if scoring and (images or not plans):
        described = sum(plan.images for plan in plans) * sum(images) / max(len(images), 1)
        seconds = described + scored * sum(scoring) / len(scoring)
        return StudyPlan(plans, count, pairs, seconds, True, notes)
    known = [plan.seconds for plan in plans if plan.seconds is not None]
    matched = len(study.matchers) * sum(pairs.values()) * _SECONDS_PER_MATCHED_PAIR
    rough = sum(known) + scored * _SECONDS_PER_PAIR + matched if len(known) == len(plans) else None
    return StudyPlan(plans, count, pairs, rough, False, notes)


def _plan_group(
    group: ForwardGroup,
    tasks: Sequence[Task],
    sets: Sequence[ListedSet],
    itemsize: int,
    speed: float,
) -> ForwardPlan:
    spec = find_descriptor(group.name, **hub_options(group.loading))
    prompt = group.shared.get("prompt")
    draws, tokens, calibration = 1, 0, 0
    seen: set[tuple[Fit, str, str | None]] = set()
    sizes: dict[str, tuple[int, int]] = {}
    for task in tasks:
        long_side: int | None = None
        if isinstance(spec, BackboneSpec):
            configs = [member_config(member, task.fit) for member in group.members]
            draws, long_side = configs[0].ensemble, configs[0].long_side
            unknown = any(c.steps.discards and c.massive_channels is None for c in configs)
            calibration += len(sets[task.place].calibration) * draws if unknown else 0
        shown = {
            (task.fit, digest, prompt_for(prompt, label)): path
            for protocol, samples in sets[task.place].protocols
            if protocol.fit == task.fit
            for sample in samples
            for path, digest, label in sample.images
        }
        for key in shown.keys() - seen:
            path = shown[key]
            if path not in sizes:
                sizes[path] = read_size(Path(path), upright=task.fit.upright)
            tokens += _tokens(sizes[path], task.fit, long_side, spec.pixels_per_token)
        seen |= shown.keys()
    times = 0.0  # of the maps, against those before upsampling
    for member in group.members:
        upsampler = find_upsampler(member.settings.get("upsample"))
        times += 1 if upsampler is None else upsampler.times(spec.pixels_per_token)
    held, images = _weights_bytes(group), len(seen)
    forwards = images * draws + calibration
    seconds = None
    if held is not None and images:
        # Two operations for each weight and token; a backbone's weights are planned in float32.
        seconds = 2 * held / 4 * tokens / images * forwards / speed
    return ForwardPlan(
        descriptor=group.name,
        configurations=len(group.members),
        images=images,
        forwards=forwards,
        cache_bytes=round(tokens * spec.width * itemsize * times),
        weights_bytes=held,
        seconds=seconds,
    )


def _tokens(size: tuple[int, int], fit: Fit, long_side: int | None, pixels: int) -> int:
    """Count the tokens of an image, up to rounding."""
    height, width = size
    if fit.kind in ("squash", "pad"):
        height = width = fit.side
    elif fit.kind != "whole" or long_side is not None:
        side = long_side if fit.kind == "whole" else fit.side
        scale = (side or 1) / (min(size) if fit.kind == "short-side" else max(size))
        height, width = round(height * scale), round(width * scale)
    return max(1, round(height / pixels)) * max(1, round(width / pixels))


def _weights_bytes(group: ForwardGroup) -> int | None:
    """Return the float32 bytes of a backbone's weights up to the last block needed."""
    spec = find_descriptor(group.name, **hub_options(group.loading))
    if not isinstance(spec, BackboneSpec) or spec.plan is None:
        return None
    block = max(member_config(member, Fit()).block for member in group.members)
    try:
        return spec.plan(
            group.source or spec.repo,
            block=block,
            dtype=torch.float32,
            architecture=spec.architecture,
            **hub_options(group.loading),
        ).held
    except DiTFError:
        return None


def _operations_per_second() -> float:
    """Measure how fast this machine multiplies matrices: the best of a few tries."""
    a = torch.rand(_SIDE, _SIDE)
    best = float("inf")
    for _ in range(4):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return 2 * _SIDE**3 / best
