"""Specs of fusions: several descriptors under one name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.dense import DescriptorSpec
from kornia_ditf.fusion import Fusion, load_fusion


def describe_fusion(
    name: str,
    parts: tuple[str, ...],
    specs: Sequence[BackboneSpec | DescriptorSpec],
    create: Callable[..., Any],
) -> DescriptorSpec:
    """Describe the fusion of several descriptors.

    Args:
        name: of the fusion.
        parts: names of the descriptors.
        specs: of each.
        create: makes a part by its name.
    """
    fusion = Fusion(
        name=name,
        parts=parts,
        width=sum(spec.width for spec in specs),
        pixels_per_token=min(spec.pixels_per_token for spec in specs),
        source="; ".join(f"{spec.name}: {spec.source}" for spec in specs),
        license="; ".join(dict.fromkeys(spec.license for spec in specs)),
    )
    return fusion_spec(fusion, create)


def fusion_spec(fusion: Fusion, create: Callable[..., Any]) -> DescriptorSpec:
    """Return the spec of a fusion whose parts `create` makes by their names."""
    return DescriptorSpec(
        name=fusion.name,
        load=partial(load_fusion, fusion, create),
        width=fusion.width,
        pixels_per_token=fusion.pixels_per_token,
        source=fusion.source,
        license=fusion.license,
        protocol=fusion.protocol,
        pca=fusion.pca,
    )
