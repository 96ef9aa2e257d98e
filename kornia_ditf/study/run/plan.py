"""Estimates of a study's forward passes, pairs, disk space and time, without loading weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import DiTFError
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.projection.stored import Projection
from kornia_ditf.protocols.protocol import Fit
from kornia_ditf.registry.checking import check_matcher
from kornia_ditf.registry.families import loading_plan
from kornia_ditf.registry.lookup import Spec, find_descriptor
from kornia_ditf.registry.matchers import find_matcher, missing_for
from kornia_ditf.registry.upsamplers import find_upsampler
from kornia_ditf.study.define.forwards import (
    ForwardGroup,
    group_configurations,
    last_blocks,
    member_config,
)
from kornia_ditf.study.define.listing import ListedSet, list_study, open_dataset
from kornia_ditf.study.define.presets import preset_notes
from kornia_ditf.study.define.spec import Configuration, Study
from kornia_ditf.study.run.costs import CostLog
from kornia_ditf.study.run.preparation import Task, tasks_of
from kornia_ditf.study.run.speed import Speed
from kornia_ditf.utils.checks import read_dtype
from kornia_ditf.utils.images import read_size

_SECONDS_PER_PAIR = 0.1  # where scoring was not measured
_SECONDS_PER_MATCHED_PAIR = 2.0  # of a matcher, which nobody knows before it runs


@dataclass(frozen=True, slots=True)
class ForwardPlan:
    """Estimate for the configurations of one forward pass.

    Args:
        configurations: how many are served together.
        images: to be described, over all data sets and ways of fitting.
        forwards: noisy images that pass the model, calibration included.
        cache_bytes: of the maps.
        weights_bytes: held in memory; None where nobody knows before loading.
        seconds: of describing, by arithmetic; None where nobody knows.
        scoring_seconds: of reading the maps and scoring the pairs of all its configurations.
        scoring_measured: whether that was measured for all of them.
    """

    descriptor: str
    configurations: int
    images: int
    forwards: int
    cache_bytes: int
    weights_bytes: int | None
    seconds: float | None
    scoring_seconds: float
    scoring_measured: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage of a study takes (None: nobody knows), and where the number comes from."""

    name: str
    seconds: float | None
    how: str


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """Estimate for a study.

    Args:
        groups: by forward pass.
        configurations: how many there are, matchers among them.
        pairs: by data set and protocol, how many are scored for each configuration.
        stages: what each takes.
        measured: whether all times come from an earlier run of the study.
        notes: where presets meet protocols that they were not published for, and what matchers
            lack here.
    """

    groups: tuple[ForwardPlan, ...]
    configurations: int
    pairs: Mapping[str, int]
    stages: tuple[Stage, ...]
    measured: bool
    notes: tuple[str, ...] = ()

    @property
    def scored(self) -> int:
        """Number of pairs scored, over all configurations."""
        return self.configurations * sum(self.pairs.values())

    @property
    def seconds(self) -> float | None:
        """Seconds of all together; None where nobody knows."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None


def plan_study(
    study: Study,
    out: Path | None = None,
    *,
    device: str | None = None,
    part: tuple[int, int] | None = None,
) -> StudyPlan:
    """Estimate a study from its beginning.

    Describing is estimated by arithmetic, from how fast the device multiplies matrices; scoring is
    measured within seconds, on maps of random values of the sizes that the study will have.

    Args:
        study: what would run.
        out: a folder in which it ran before, for the times that were measured.
        device: as for `run_study`.
        part: likewise.

    Raises:
        InvalidArgumentError: a name, option or value in the study is wrong.
        DatasetError: a data set's files are missing or malformed.
    """
    for choice in study.matchers:
        check_matcher(choice.shown, choice.name, choice.options)
    sets = list_study(study, part)
    groups = group_configurations(study.configurations())
    tasks = tasks_of(groups, sets)
    itemsize = read_dtype(study.cache_dtype).itemsize
    speeds: dict[str, Speed] = {}
    plans = []
    for group in groups:
        place = device or str(group.loading.get("device") or "cpu")
        speed = speeds.setdefault(place, Speed(place))
        own = [task for task in tasks if task.group is group]
        plans.append(_plan_group(group, own, sets, itemsize, speed))
    pairs = {
        f"{listed.label}, {protocol.name}": len(samples)
        for listed in sets
        for protocol, samples in listed.protocols
    }
    notes = preset_notes(study, sets)
    for choice in study.matchers:
        reason = missing_for(find_matcher(choice.name))
        if reason:
            notes.append(f"{choice.shown} will have no score: {reason}")
    for name, speed in speeds.items():
        if speed.replaced:
            notes.append(f"there is no device {name!r} here; speeds are those of the CPU")
    planned = StudyPlan(
        groups=tuple(plans),
        configurations=len(study.configurations()) + len(study.matchers),
        pairs=pairs,
        stages=tuple(_stages(plans, len(study.matchers) * sum(pairs.values()))),
        measured=False,
        notes=tuple(notes),
    )
    costs = [] if out is None else list(CostLog(out).read().values())
    images = [cost.seconds_per_image for cost in costs if cost.seconds_per_image is not None]
    scoring = [cost.seconds_per_pair for cost in costs if cost.seconds_per_pair is not None]
    if not scoring or (plans and not images):
        return planned
    described = sum(plan.images for plan in plans) * sum(images) / max(len(images), 1)
    scored = planned.scored * sum(scoring) / len(scoring)
    how = "measured by an earlier run"
    stages = Stage("describing", described, how), Stage("scoring", scored, how)
    return replace(planned, stages=stages, measured=True)


def _stages(plans: Sequence[ForwardPlan], matched: int) -> Iterator[Stage]:
    known = [plan.seconds for plan in plans if plan.seconds is not None]
    if plans:
        described = sum(known) if len(known) == len(plans) else None
        yield Stage("describing", described, "by arithmetic, from how fast matrices are multiplied")
        measured = all(plan.scoring_measured for plan in plans)
        how = "measured here on random maps" if measured else "partly a guess of 0.1 s per pair"
        yield Stage("scoring", sum(plan.scoring_seconds for plan in plans), how)
    if matched:
        yield Stage("matching", matched * _SECONDS_PER_MATCHED_PAIR, "a guess of 2 s per pair")


def _plan_group(
    group: ForwardGroup,
    tasks: Sequence[Task],
    sets: Sequence[ListedSet],
    itemsize: int,
    speed: Speed,
) -> ForwardPlan:
    spec = find_descriptor(group.name, **hub_options(group.loading))
    draws, tokens, calibration = 1, 0, 0
    scoring, measured = 0.0, True
    grids: dict[tuple[Fit, str], tuple[int, int]] = {}
    described: set[tuple[Any, ...]] = set()
    for task in tasks:
        fit, listed, long_side = task.fit, sets[task.place], None
        if isinstance(spec, BackboneSpec):
            configs = [member_config(member, fit) for member in group.members]
            timesteps = {timestep for config in configs for timestep in config.all_timesteps}
            draws, long_side = configs[0].ensemble * len(timesteps), configs[0].long_side
            unknown = any(c.steps.discards and c.massive_channels is None for c in configs)
            calibration += len(listed.calibration) * draws if unknown else 0
        for protocol, samples in listed.protocols:
            if protocol.fit != fit:
                continue
            for sample in samples:
                for path, *view in sample.views(group.shared.get("prompt"), protocol.align):
                    key = fit, *view
                    if (fit, path) not in grids:
                        size = read_size(Path(path), upright=fit.upright)
                        grids[fit, path] = _grid(size, fit, long_side, spec.pixels_per_token)
                    if key not in described:
                        described.add(key)
                        tokens += prod(grids[fit, path])
            grid = grids[fit, samples[0].images[0][0]]
            dataset, index = open_dataset(listed.choice), samples[0].index
            known = speed.scoring(protocol, dataset, index, grid, spec.width)
            measured = measured and known is not None
            reading, scored = known or (0.0, _SECONDS_PER_PAIR)
            images = {digest for sample in samples for _, digest, _ in sample.images}
            scoring += len(group.members) * (reading * len(images) + scored * len(samples))
    held, forwards = _weights_bytes(group, spec), len(described) * draws + calibration
    seconds = None
    if held is not None:
        # Two operations for each weight and token; a backbone's weights are planned in float32.
        operations = 2 * held / 4 * tokens / len(described) * forwards
        seconds = operations / speed.operations_per_second()
    return ForwardPlan(
        descriptor=group.name,
        configurations=len(group.members),
        images=len(described),
        forwards=forwards,
        cache_bytes=round(tokens * itemsize * sum(_width(m, spec) for m in group.members)),
        weights_bytes=held,
        seconds=seconds,
        scoring_seconds=scoring,
        scoring_measured=measured,
    )


def _width(member: Configuration, spec: Spec) -> float:
    """Return a member's channels, times its tokens for each that the model gives."""
    file = member.settings.get("projection")
    joined = spec.width * len(member.settings.get("blocks", (0,)))
    upsampler = find_upsampler(member.settings.get("upsample"))
    finer = 1 if upsampler is None else upsampler.times(spec.pixels_per_token)
    return finer * (joined if file is None else Projection.load(file).width)


def _grid(size: tuple[int, int], fit: Fit, long_side: int | None, pixels: int) -> tuple[int, int]:
    """Return the token grid of an image, up to rounding."""
    height, width = size
    if fit.kind in ("squash", "pad"):
        height = width = fit.side
    elif fit.kind != "whole" or long_side is not None:
        side = long_side if fit.kind == "whole" else fit.side
        scale = (side or 1) / (min(size) if fit.kind == "short-side" else max(size))
        height, width = round(height * scale), round(width * scale)
    return max(1, round(height / pixels)), max(1, round(width / pixels))


def _weights_bytes(group: ForwardGroup, spec: Spec) -> int | None:
    """Return the float32 bytes of a backbone's weights up to the last block needed."""
    if not isinstance(spec, BackboneSpec):
        return None
    try:
        planned = loading_plan(
            spec,
            group.source,
            block=last_blocks([group])[group.weights],
            dtype=torch.float32,
            **hub_options(group.loading),
        )
    except DiTFError:
        return None
    return None if planned is None else planned.held
