"""Models that are not registered, described by their configurations as members of a family."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint

_LARGEST = 2**20  # no model has as many blocks or channels


def describe_checkpoint(
    source: str | Path, families: Iterable[BackboneSpec], **hub: Any
) -> BackboneSpec:
    """Describe a model by its two configurations, as one of the families with the neutral rule.

    Args:
        source: a folder or hub id.
        families: specs, told apart by their pipelines; of several with one, the first.
        hub: options of `Checkpoint`.

    Raises:
        CheckpointError: it holds no model of these families, or says neither depth nor width.
        HubError: the hub does not give the configurations.
    """
    checkpoint = Checkpoint(source, **hub)
    pipeline = str(checkpoint.json("model_index.json").get("_class_name"))
    config = checkpoint.json("transformer/config.json")
    known: set[str] = set()
    for spec in families:
        if spec.pipeline == pipeline:
            break
        known.add(spec.pipeline)
    else:
        raise CheckpointError(
            f"{source} holds a {pipeline}, which no installed family knows; "
            f"known: {', '.join(sorted(known))}"
        )
    counts = [config.get(name, 0) for name in spec.blocks_from]
    sides = [config.get(name, 0) for name in spec.width_from]
    usable = all(type(n) is int and 0 <= n < _LARGEST for n in counts + sides)
    if not usable or not sum(counts) * math.prod(sides):
        raise CheckpointError(
            f"{source}: its transformer's configuration has no usable depth "
            f"({', '.join(spec.blocks_from)}) or width ({', '.join(spec.width_from)})"
        )
    return BackboneSpec.uncalibrated(
        name=str(source),
        repo=str(source),
        pipeline=pipeline,
        load=spec.load,
        plan=spec.plan,
        blocks=sum(counts),
        width=math.prod(sides),
        blocks_from=spec.blocks_from,
        width_from=spec.width_from,
        pixels_per_token=spec.pixels_per_token,
        long_side=spec.long_side,
        license="see its publisher",
    )
