"""A name or a folder in, a backbone's spec or a ready descriptor out.

What comes with the package is found first; plugins
(`kornia_ditf.registry.plugins`) are asked only for names that it has not, or when all are listed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

from kornia_ditf import backbones, datasets
from kornia_ditf.backbones.base import Backbone
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
from kornia_ditf.descriptor import DiTF, DiTFConfig
from kornia_ditf.errors import (
    CheckpointError,
    InvalidArgumentError,
    MissingExtraError,
    UnknownBackboneError,
)
from kornia_ditf.fusion import FUSIONS, Fusion, load_fusion
from kornia_ditf.loading.checkpoint import Checkpoint, is_hub_id
from kornia_ditf.registry import hookspecs
from kornia_ditf.registry.catalogue import AnySpec, Names
from kornia_ditf.registry.plugins import Plugin, installed_plugins
from kornia_ditf.utils.checks import read_dtype

DEFAULT_BACKBONE = "nano"

Spec: TypeAlias = BackboneSpec | DescriptorSpec


class _BuiltIn:
    """What comes with the package, registered through the same hooks as a plugin's."""

    @hookspecs.hookimpl
    def register_backbones(self) -> Iterable[BackboneSpec]:
        return backbones.SPECS

    @hookspecs.hookimpl
    def register_descriptors(self) -> Iterable[DescriptorSpec]:
        return [_fusion_spec(fusion) for fusion in FUSIONS]

    @hookspecs.hookimpl
    def register_datasets(self) -> Iterable[DatasetSpec]:
        return datasets.SPECS


def list_backbones() -> dict[str, BackboneSpec]:
    """List every installed backbone by name; loads no model library.

    Example:
        >>> list_backbones()["flux.1-dev"].block
        28
    """
    return {name: s for name, s in _names().all().items() if isinstance(s, BackboneSpec)}


def find_backbone(name: str | Path) -> BackboneSpec:
    """Find a backbone's spec by its name, or make one for any model in the diffusers layout.

    Args:
        name: an installed backbone's name or hub id, another hub id, or a local folder. What is
            not installed takes the family's class and the neutral rule; its two configurations
            are read for that.

    Raises:
        UnknownBackboneError: it is none of these.
        CheckpointError: it holds no model of a known family.
        HubError: the hub does not give the configurations.
    """
    found = _find(name)
    if isinstance(found, BackboneSpec):
        return found
    if str(name) and Path(name).expanduser().is_dir():
        return describe_checkpoint(name, _backbones())
    if is_hub_id(str(name)):
        published = (spec for spec in _backbones() if spec.repo.lower() == str(name).lower())
        return next(published, None) or describe_checkpoint(name, _backbones())
    near = get_close_matches(str(name).lower(), list_descriptors(), n=1, cutoff=0.4)
    advice = f"did you mean {near[0]!r}? " if near else ""
    raise UnknownBackboneError(
        f"no backbone is named {str(name)!r} and no such folder exists; {advice}"
        f"installed: {', '.join(list_descriptors())}"
    )


def list_descriptors() -> dict[str, Spec]:
    """List every installed dense descriptor by name, DiT backbones first; loads no model library.

    Example:
        >>> list_descriptors()["nano"].width
        160
    """
    return {name: s for name, s in _names().all().items() if not isinstance(s, DatasetSpec)}


def list_datasets() -> dict[str, DatasetSpec]:
    """List every installed data set by name; reads none."""
    return {name: s for name, s in _names().all().items() if isinstance(s, DatasetSpec)}


def find_dataset(name: str) -> DatasetSpec:
    """Find a data set's spec by its name.

    Raises:
        InvalidArgumentError: no data set has it.
    """
    known = list_datasets()
    if name not in known:
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.4)
        advice = f"did you mean {near[0]!r}? " if near else ""
        raise InvalidArgumentError(
            f"no data set is named {name!r}; {advice}installed: {', '.join(known)}"
        )
    return known[name]


def load_dataset(name: str, root: str | Path, **options: Any) -> Sequence[Any]:
    """Read an installed data set: a `PairDataset`, or a `SequenceDataset` of frames.

    Args:
        name: an installed data set's.
        root: the folder that holds it.
        options: `split`, and those that the set has besides.

    Raises:
        InvalidArgumentError: there is no such data set, or it has no such option.
        DatasetError: a file is missing or malformed.

    Example:
        >>> pairs = load_dataset("folder", "examples/data")
        >>> len(pairs), pairs[0].size_a
        (2, (512, 640))
    """
    pairs: Sequence[Any] = _load(find_dataset(name), (root,), options)
    return pairs


def find_descriptor(name: str | Path) -> Spec:
    """Find a dense descriptor's spec by its name; what is no descriptor's is a backbone's.

    Args:
        name: an installed descriptor's, whatever `find_backbone` takes, or several of these with
            a `+` between them, which are fused.

    Raises:
        UnknownBackboneError: neither a descriptor nor a backbone, see `find_backbone`.
        CheckpointError: a folder holds no model of a known family.
        HubError: the hub does not give the configurations.
    """
    found = _find(name)
    if isinstance(found, DescriptorSpec):
        return found
    parts = str(name).split("+")
    if len(parts) > 1 and not Path(name).expanduser().is_dir():
        return _describe_fusion(str(name), tuple(parts))
    return find_backbone(name)


def create_descriptor(
    name: str | Path = DEFAULT_BACKBONE, *, source: str | Path | None = None, **options: Any
) -> DenseDescriptor:
    """Load a dense descriptor with its preset: a DiTF on a backbone, or whatever a plugin adds.

    Args:
        name: an installed descriptor or backbone, or a hub id or folder in the diffusers layout;
            or several of these with a `+` between them, which are fused.
        source: where a named one's weights are, if not in its own repository.
        options: for a backbone, fields of `DiTFConfig` change the preset (`block`, `timestep`,
            `treatment`, `ensemble` ...) and all others go to its loader (`dtype`, `device`,
            `offload`, `revision`, `guidance` ...). For a fusion, `weights` and `grid` are those of
            `FusedDescriptor`, `options` holds each part's by its name, and all others go to every
            part. For any other descriptor all go to its loader. A dtype may be a name:
            `"bfloat16"`.

    Raises:
        UnknownBackboneError: there is no such descriptor.
        InvalidArgumentError: an option is unknown or out of range.
        CheckpointError: the weights are incomplete or damaged.
        HubError: the weights cannot be had.

    Example:
        >>> descriptor = create_descriptor("nano", treatment="raw")
        >>> descriptor.config.treatment
        'raw'
    """
    spec = find_descriptor(name)
    if isinstance(spec, BackboneSpec):
        return _create_ditf(spec, source, options)
    if source is not None:
        options["source"] = source
    descriptor: DenseDescriptor = _check_made(spec, _load(spec, (), options), DenseDescriptor)
    return descriptor


def create_ditf(
    name: str | Path = DEFAULT_BACKBONE, *, source: str | Path | None = None, **options: Any
) -> DiTF:
    """Load a backbone and make a DiTF descriptor; `create_descriptor` for backbones alone.

    Arguments and errors as there. A DiTF also shows its taps, blocks and massive channels.
    """
    return _create_ditf(find_backbone(name), source, options)


def _create_ditf(spec: BackboneSpec, source: str | Path | None, options: Mapping[str, Any]) -> DiTF:
    names = {each.name for each in fields(DiTFConfig)}
    changes = {key: value for key, value in options.items() if key in names}
    loading = {key: value for key, value in options.items() if key not in names}
    config = DiTFConfig.from_spec(spec, **changes)
    if config.block >= spec.blocks:
        raise InvalidArgumentError(
            f"{spec.name} has blocks 0 to {spec.blocks - 1}, got block={config.block}"
        )
    backbone = _load(spec, (source or spec.repo,), {**loading, "block": config.block})
    ditf = DiTF(_check_made(spec, backbone, Backbone), config)
    if "massive_channels" not in changes:
        ditf.channels_from = "preset"
    return ditf


def _describe_fusion(name: str, parts: tuple[str, ...]) -> DescriptorSpec:
    specs = [find_descriptor(part) for part in parts]
    return _fusion_spec(
        Fusion(
            name=name,
            parts=parts,
            width=sum(spec.width for spec in specs),
            pixels_per_token=min(spec.pixels_per_token for spec in specs),
            source="; ".join(f"{spec.name}: {spec.source}" for spec in specs),
            license="; ".join(dict.fromkeys(spec.license for spec in specs)),
        )
    )


def _fusion_spec(fusion: Fusion) -> DescriptorSpec:
    return DescriptorSpec(
        name=fusion.name,
        load=partial(load_fusion, fusion, _create_part),
        width=fusion.width,
        pixels_per_token=fusion.pixels_per_token,
        source=fusion.source,
        license=fusion.license,
    )


def _create_part(name: str, plugin: str | None, **options: Any) -> DenseDescriptor:
    if plugin is not None and _find(name) is None:
        raise MissingExtraError(f"{name} comes with a plugin: pip install {plugin}")
    return create_descriptor(name, **options)


def _load(spec: AnySpec, places: Any, options: dict[str, Any]) -> Any:
    if options.get("dtype") is not None:
        options = {**options, "dtype": read_dtype(options["dtype"])}
    try:
        return spec.load(*places, **options)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None or unknown[1] not in options:
            raise
        raise InvalidArgumentError(f"{spec.name} has no option {unknown[1]!r}") from error


def _find(name: str | Path) -> AnySpec | None:
    # A path or a hub id is no name, so that no plugin need be asked for it.
    return None if "/" in str(name) else _names().get(str(name))


def _backbones() -> Iterator[BackboneSpec]:
    """Go through the backbones, built-in ones first; a plugin is asked when its turn comes."""
    return (spec for spec in _names() if isinstance(spec, BackboneSpec))


def _check_made(spec: Spec, made: Any, kind: type) -> Any:
    if not isinstance(made, kind):
        raise InvalidArgumentError(
            f"load of {spec.name!r} gave a {type(made).__name__}, not a {kind.__name__}; the "
            "plugin that registers it is at fault"
        )
    return made


def describe_checkpoint(source: str | Path, families: Iterable[BackboneSpec]) -> BackboneSpec:
    """Describe a model by its two configurations, as one of the families with the neutral rule.

    Args:
        source: a folder or hub id.
        families: specs, told apart by their pipelines; of several with one, the first.

    Raises:
        CheckpointError: it holds no model of these families, or says neither depth nor width.
        HubError: the hub does not give the configurations.
    """
    checkpoint = Checkpoint(source)
    pipeline = checkpoint.json("model_index.json").get("_class_name")
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
    if not all(isinstance(n, int) for n in counts + sides) or not sum(counts) * math.prod(sides):
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


def _names() -> Names:
    with _MAKING:  # two threads must not make two, of which each would ask half of the plugins
        return _make_names()


_MAKING = Lock()


@cache
def _make_names() -> Names:
    return Names(_BuiltIn(), installed_plugins())


def ask_plugins() -> tuple[Plugin, ...]:
    """Ask every plugin that has not been asked yet, and give all of them with what became of them.

    Example:
        >>> broken = [plugin.name for plugin in ask_plugins() if plugin.state == "left out"]
    """
    _names().all()
    return installed_plugins()


def forget_plugins() -> None:
    """Find and ask the plugins anew when they are next needed, as after an installation."""
    installed_plugins.cache_clear()
    _make_names.cache_clear()
