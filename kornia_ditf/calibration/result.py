"""From a finished search to a preset, and where its scores are recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.calibration.grid import CostModel, Grid
from kornia_ditf.calibration.preset import Measured, Preset, Settings, Weights
from kornia_ditf.calibration.samples import Task
from kornia_ditf.calibration.search import Calibration
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.fingerprint import fingerprint
from kornia_ditf.utils import provenance
from kornia_ditf.utils.cache import cache_folder


def records_file(ditf: DiTF) -> Path | None:
    """Return the file of a model's scores in the cache; None where its weights have no name."""
    backbone, config = ditf.backbone, ditf.config
    if backbone.identity is None:
        return None
    # All but what each score names itself, and what changes no feature.
    kept = replace(
        config,
        block=0,
        timestep=0,
        long_side=None,
        ensemble=1,
        treatment="raw",
        massive_channels=None,
        rows_per_forward=None,
        gradients=False,
        checks="first",
    )
    version = provenance.package_version("kornia-ditf")
    values = (backbone.identity, backbone.settings(), kept, version)
    name = hashlib.sha256(repr(values).encode()).hexdigest()[:32]
    return cache_folder() / "calibrations" / f"{name}.jsonl"


def identify(
    spec: BackboneSpec, source: str | Path | None, ditf: DiTF, hub: Mapping[str, Any]
) -> Weights:
    """Describe a backbone's weights as presets name them.

    Args:
        spec: of the backbone.
        source: where its weights are, if not in its own place.
        ditf: on it.
        hub: options of `Checkpoint`.
    """
    try:
        checkpoint = Checkpoint(spec.repo if source is None else source, **hub)
        identity, mark = checkpoint.identity, fingerprint(checkpoint)
    except CheckpointError:  # a plugin has a loader and a layout of its own
        identity, mark = ditf.backbone.identity or "unknown", None
    return Weights(identity=identity, fingerprint=mark, blocks=spec.blocks, width=spec.width)


def make_preset(
    weights: Weights, spec: BackboneSpec, ditf: DiTF, task: Task, found: Calibration
) -> Preset:
    """Create the preset of a finished search."""
    cell = found.cell
    return Preset(
        backbone=None if spec.name == spec.repo else spec.name,
        weights=weights,
        settings=Settings(
            block=cell.block,
            timestep=cell.timestep,
            long_side=cell.long_side,
            ensemble=cell.draws,
            treatment=str(cell.treatment),
            massive_channels=found.channels,
        ),
        measured=Measured(
            task=task.name,
            criterion=task.criterion,
            score=round(found.score.value, 6),
            low=round(found.score.low, 6),
            high=round(found.score.high, 6),
            certainty=round(found.certainty, 4),
            samples=found.samples,
            images=task.digest,
            date=provenance.now(),
            computed=ditf.backbone.settings(),
            cost={
                name: getattr(found, name)
                for name in ("forwards", "flops", "grid_forwards", "grid_flops")
            },
            versions=provenance.versions(),
        ),
    )


def as_values(preset: Preset, found: Calibration, grid: Grid, cost: CostModel) -> dict[str, Any]:
    """Return everything that was measured as JSON values, the preset's own first."""
    finalists = sorted(found.finalists.items(), key=lambda each: -each[1])
    return {
        **json.loads(preset.to_json()),
        "grid": grid_values(grid),
        "finalists": [
            {**cell._asdict(), "score": score, "gflop": cost.cell_flops(cell) / 1e9}
            for cell, score in finalists
        ],
        "screened": [
            {"timestep": timestep, "block": block, "score": score}
            for (timestep, block), score in found.screened.items()
        ],
        "failures": [
            {**forward._asdict(), "reason": reason} for forward, reason in found.failures.items()
        ],
    }


def grid_values(grid: Grid) -> dict[str, list[Any]]:
    """Return a grid as JSON values."""
    return {name: list(values) for name, values in asdict(grid).items()}
