"""Specs of what is not registered: models by their configurations, and fusions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.dense import DescriptorSpec
from kornia_ditf.errors import CheckpointError, InvalidArgumentError, UnknownBackboneError
from kornia_ditf.fusion import Fusion, load_fusion
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.memory import LoadedModel, refuse_loading_options
from kornia_ditf.loading.plan import LoadingPlan
from kornia_ditf.loading.single_file import default_config, infer_config
from kornia_ditf.loading.weight_file import WeightFile, as_file, refuse_config
from kornia_ditf.registry.catalogue import AnySpec
from kornia_ditf.registry.options import known_options

_LARGEST = 2**20  # no model has as many blocks or channels


def describe_checkpoint(
    source: str | Path, families: Iterable[BackboneSpec], **hub: Any
) -> BackboneSpec:
    """Describe a model by its two configurations, as one of the families with the neutral rule.

    Args:
        source: a folder or hub id.
        families: specs, told apart by their pipelines, then by their VAEs.
        hub: options of `Checkpoint`.

    Raises:
        CheckpointError: it holds no model of these families, or says neither depth nor width.
        HubError: the hub does not give the configurations.
    """
    refuse_config(source, hub.pop("config", None))
    checkpoint = Checkpoint(source, **hub)
    index = checkpoint.index
    pipeline, vae = str(index.get("_class_name")), index.get("vae")
    config = checkpoint.json("transformer/config.json")
    known: set[str] = set()
    alike: list[tuple[int, bool, BackboneSpec]] = []
    for spec in families:
        known.add(spec.pipeline)
        own = None if spec.in_memory is None else spec.in_memory.vae
        same_vae = own is None or not isinstance(vae, list) or own == vae[-1]
        if spec.pipeline == pipeline and same_vae:
            return _with_neutral_rule(spec, str(source), config)
        model = None if spec.in_memory is None else spec.in_memory.model
        if spec.pipeline == pipeline or model == config.get("_class_name"):
            alike.append((_stem(spec.pipeline, [pipeline]), same_vae, spec))
    if alike:  # such as a pipeline for inpainting, which has the same transformer
        best = max(alike, key=lambda each: each[:2])[2]
        return _with_neutral_rule(best, str(source), config)
    raise CheckpointError(
        f"{source} holds a {pipeline}, which no installed family supports; known: "
        f"{', '.join(sorted(known))}"
    )


def describe_file(
    path: Path, families: Iterable[BackboneSpec], *, config: str | Path | None = None, **hub: Any
) -> BackboneSpec:
    """Describe a single file of weights as one of the families with the neutral rule.

    Args:
        path: the file.
        families: specs; without `config`, those whose published architecture fits its tensors, or
            else the default one of their class in diffusers.
        config: folder or hub id of its configurations.
        hub: options of `Checkpoint`, for reading them.

    Raises:
        CheckpointError: it holds no transformer of these families; the message says what it holds.
        HubError: the hub does not give the configurations.
    """
    if config is not None:
        spec = describe_checkpoint(config, families, **hub)
        return replace(spec, name=str(path), repo=str(path), base=str(config))
    file, likely, most = WeightFile(path), "", 0
    tried: list[Mapping[str, Any]] = []
    for spec in families:
        owner = getattr(spec.load, "__self__", None)
        if not isinstance(owner, type) or not issubclass(owner, DiffusersBackbone):
            continue
        known = spec.architecture.get("transformer") or default_config(owner.transformer_class)
        if known not in tried:
            tried.append(known)
            found, fitting = infer_config(file, owner.layout(), owner.blocks_from, known)
            if found is not None:
                # What a class has by default need not be what a model was published with.
                own = {**spec.architecture, "transformer": found} if spec.architecture else {}
                described = _with_neutral_rule(spec, str(path), found)
                return replace(described, architecture=own, base=spec.base or spec.repo)
            if fitting > most:
                likely, most = spec.name, fitting
    if likely and (most > 1 or file.other() is None):
        raise CheckpointError(
            f"{path} holds a transformer like {likely}, of an unknown shape; pass config=... with "
            "the folder or hub id of its configurations"
        )
    raise CheckpointError(file.explain())


def describe_loaded(loaded: LoadedModel, specs: Iterable[AnySpec]) -> Any:
    """Describe a model in memory, as one of the families by its transformer's class.

    Of several families with the class, one with the model's pipeline comes first, then one with
    its VAE, then one with its configuration. A model that was loaded from a published repository
    has the preset of that one.

    Args:
        loaded: the model.
        specs: registered specs, those of data sets included.

    Returns:
        a `BackboneSpec` or `DescriptorSpec`.

    Raises:
        UnknownBackboneError: no family has a transformer of this class.
        CheckpointError: its configuration says neither depth nor width.
    """
    known: set[str] = set()
    fitting = []
    for spec in specs:
        if isinstance(spec, BackboneSpec | DescriptorSpec) and spec.in_memory is not None:
            known.add(spec.in_memory.model)
            if spec.in_memory.model in loaded.class_names:
                fitting.append(spec)
    if not fitting:
        raise UnknownBackboneError(
            f"no installed family has a {loaded.class_names[0]}; known: {', '.join(sorted(known))}."
            " Declare another with DiffusersBackbone and its from_loaded, or with ModuleBackbone: "
            "docs/own-backbones.md"
        )
    published = [spec for spec in fitting if spec.repo and spec.repo == loaded.name]
    if published:
        return published[0]
    spec = max(fitting, key=lambda each: _likeness(each, loaded))  # the first of equal ones
    if isinstance(spec, DescriptorSpec):
        return spec
    source = loaded.name or loaded.class_names[0]
    return _with_neutral_rule(spec, source, loaded.json("transformer/config.json"))


def check_fits(
    spec: AnySpec, loaded: LoadedModel, options: Mapping[str, Any]
) -> Callable[..., Any]:
    """Return what makes a backbone or descriptor of a model in memory.

    Raises:
        InvalidArgumentError: the spec takes no such model, or an option says how to load one.
    """
    if not isinstance(spec, BackboneSpec | DescriptorSpec) or spec.in_memory is None:
        raise InvalidArgumentError(f"{spec.name} needs a folder or hub id, not a model in memory")
    if spec.in_memory.model not in loaded.class_names:
        raise InvalidArgumentError(
            f"{spec.name} takes a {spec.in_memory.model}, got a {loaded.class_names[0]}"
        )
    refuse_loading_options(options)
    return spec.in_memory.make


def file_options(spec: BackboneSpec, source: str | Path) -> dict[str, Any]:
    """Return what a loader must know of a single file besides: nothing where it is none."""
    if "config" not in known_options(spec.load) or as_file(source) is None:
        return {}
    return {"config": spec.base or spec.repo, "architecture": spec.architecture}


def loading_plan(
    spec: BackboneSpec,
    source: str | Path | None,
    *,
    block: int,
    dtype: torch.dtype,
    **options: Any,
) -> LoadingPlan | None:
    """Estimate the cost of loading up to a block; None if it is known only after loading.

    Args:
        spec: of the backbone.
        source: a folder, hub id or single file; None is the backbone's own repository.
        block: the last one that is loaded.
        dtype: of the transformer.
        options: of the loader, such as `revision`.

    Raises:
        CheckpointError: a local folder lacks a file or holds a damaged one.
        HubError: the hub does not give the configuration, and it is not known.
    """
    if spec.plan is None:
        return None
    place = source or spec.repo
    given = {"architecture": spec.architecture, **file_options(spec, place), **options}
    return spec.plan(place, block=block, dtype=dtype, **given)


def join_specs(name: str, specs: Sequence[BackboneSpec | DescriptorSpec]) -> Fusion:
    """Describe the fusion of several descriptors, whose names stand in `name` with a + between."""
    return Fusion(
        name=name,
        parts=tuple(name.split("+")),
        width=sum(spec.width for spec in specs),
        pixels_per_token=min(spec.pixels_per_token for spec in specs),
        source="; ".join(f"{spec.name}: {spec.source}" for spec in specs),
        license="; ".join(dict.fromkeys(spec.license for spec in specs)),
    )


def fusion_spec(fusion: Fusion, create: Callable[..., Any]) -> Fusion:
    """Return a fusion whose parts `create` makes by their names."""
    return replace(fusion, load=partial(load_fusion, fusion, create))


def _likeness(spec: BackboneSpec | DescriptorSpec, loaded: LoadedModel) -> tuple[int, ...]:
    known = spec.in_memory
    if known is None:
        return ()
    config = loaded.json("transformer/config.json")
    return (
        _stem(known.pipeline, loaded.pipeline_classes),
        known.vae == type(loaded.vae).__name__,
        all(config.get(key) == value for key, value in known.config.items()),
    )


def _stem(known: str, names: Sequence[str]) -> int:
    """Return how much of a pipeline's name others share: FluxKontext of FluxKontextInpaint."""
    stem = known.removesuffix("Pipeline")
    return len(stem) if any(name.startswith(stem) for name in names) else 0


def _with_neutral_rule(spec: BackboneSpec, name: str, config: Mapping[str, Any]) -> BackboneSpec:
    counts = [config.get(key, 0) for key in spec.blocks_from]
    sides = [config.get(key, 0) for key in spec.width_from]
    usable = all(type(n) is int and 0 <= n < _LARGEST for n in counts + sides)
    if not usable or not sum(counts) * math.prod(sides):
        raise CheckpointError(
            f"{name}: its transformer's configuration has no usable depth "
            f"({', '.join(spec.blocks_from)}) or width ({', '.join(spec.width_from)})"
        )
    return BackboneSpec.uncalibrated(
        name=name,
        repo=name,
        pipeline=spec.pipeline,
        load=spec.load,
        plan=spec.plan,
        in_memory=spec.in_memory,
        blocks=sum(counts),
        width=math.prod(sides),
        blocks_from=spec.blocks_from,
        width_from=spec.width_from,
        needs=spec.needs,
        pixels_per_token=spec.pixels_per_token,
        long_side=spec.long_side,
        license="see its publisher",
    )
