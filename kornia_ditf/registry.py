"""A name or a folder in, a backbone's spec or a ready descriptor out.

Plugins are found through the entry-point group `kornia_ditf`. One that fails is named in a
warning and left out, and everything else goes on.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeAlias

import pluggy

from kornia_ditf import backbones, datasets, hookspecs
from kornia_ditf.checkpoint import Checkpoint, is_hub_id
from kornia_ditf.checks import read_dtype
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.descriptor import DiTF, DiTFConfig
from kornia_ditf.errors import (
    CheckpointError,
    InvalidArgumentError,
    PluginWarning,
    UnknownBackboneError,
)
from kornia_ditf.spec import BackboneSpec, DatasetSpec, DescriptorSpec

DEFAULT_BACKBONE = "nano"

Spec: TypeAlias = BackboneSpec | DescriptorSpec
AnySpec: TypeAlias = BackboneSpec | DescriptorSpec | DatasetSpec


class _BuiltIn:
    """The built-in families and data sets, registered through the same hooks as a plugin's."""

    @hookspecs.hookimpl
    def register_backbones(self) -> Iterable[BackboneSpec]:
        return backbones.SPECS

    @hookspecs.hookimpl
    def register_datasets(self) -> Iterable[DatasetSpec]:
        return datasets.SPECS


def list_backbones() -> dict[str, BackboneSpec]:
    """List every installed backbone by name; loads no model library.

    Example:
        >>> list_backbones()["flux.1-dev"].block
        28
    """
    return {name: s for name, s in _installed().items() if isinstance(s, BackboneSpec)}


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
    installed = list_backbones()
    if str(name) in installed:
        return installed[str(name)]
    published = {spec.repo.lower(): spec for spec in installed.values()}
    if str(name).lower() in published:
        return published[str(name).lower()]
    if str(name) and (Path(name).expanduser().is_dir() or is_hub_id(str(name))):
        return _describe_checkpoint(name)
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
    return {name: s for name, s in _installed().items() if not isinstance(s, DatasetSpec)}


def list_datasets() -> dict[str, DatasetSpec]:
    """List every installed data set by name; reads none."""
    return {name: s for name, s in _installed().items() if isinstance(s, DatasetSpec)}


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

    Raises:
        UnknownBackboneError: neither a descriptor nor a backbone, see `find_backbone`.
        CheckpointError: a folder holds no model of a known family.
        HubError: the hub does not give the configurations.
    """
    found = list_descriptors().get(str(name))
    return find_backbone(name) if found is None else found


def create_descriptor(
    name: str | Path = DEFAULT_BACKBONE, *, source: str | Path | None = None, **options: Any
) -> DenseDescriptor:
    """Load a dense descriptor with its preset: a DiTF on a backbone, or whatever a plugin adds.

    Args:
        name: an installed descriptor or backbone, or a hub id or folder in the diffusers layout.
        source: where a named one's weights are, if not in its own repository.
        options: for a backbone, fields of `DiTFConfig` change the preset (`block`, `timestep`,
            `treatment`, `ensemble` ...) and all others go to its loader (`dtype`, `device`,
            `offload`, `revision`, `guidance` ...); for any other descriptor all go to its loader.
            A dtype may be a name: `"bfloat16"`.

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
    descriptor: DenseDescriptor = _load(spec, (), options)
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
    return DiTF(_load(spec, (source or spec.repo,), {**loading, "block": config.block}), config)


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


def _describe_checkpoint(source: str | Path) -> BackboneSpec:
    checkpoint = Checkpoint(source)
    pipeline = checkpoint.json("model_index.json").get("_class_name")
    config = checkpoint.json("transformer/config.json")
    known = {spec.pipeline: spec for spec in reversed(list_backbones().values())}
    if pipeline not in known:
        raise CheckpointError(
            f"{source} holds a {pipeline}, which no installed family knows; "
            f"known: {', '.join(sorted(known))}"
        )
    counts = [config.get(name, 0) for name in ("num_layers", "num_single_layers")]
    sides = [config.get(name, 0) for name in ("num_attention_heads", "attention_head_dim")]
    if not all(isinstance(value, int) for value in counts + sides) or not sum(counts):
        raise CheckpointError(
            f"{source}: its transformer's configuration has no usable depth or width"
        )
    spec = known[pipeline]
    return BackboneSpec.uncalibrated(
        name=str(source),
        repo=str(source),
        pipeline=pipeline,
        load=spec.load,
        plan=spec.plan,
        blocks=sum(counts),
        width=sides[0] * sides[1],
        pixels_per_token=spec.pixels_per_token,
        long_side=spec.long_side,
        license="see its publisher",
    )


_KINDS: dict[str, type[AnySpec]] = {
    "register_backbones": BackboneSpec,
    "register_descriptors": DescriptorSpec,
    "register_datasets": DatasetSpec,
}


@cache
def _installed() -> dict[str, AnySpec]:
    found: dict[str, AnySpec] = {}
    origins: dict[str, str] = {}
    for origin, hook, specs in _registered():
        for spec in specs:
            if not isinstance(spec, _KINDS[hook]):
                _leave_out(origin, f"{hook} gave a {type(spec).__name__}")
            elif spec.name in found:
                _leave_out(origin, f"the name {spec.name!r} belongs to {origins[spec.name]}")
            else:
                found[spec.name], origins[spec.name] = spec, origin
    return found


def _registered() -> Iterable[tuple[str, str, list[object]]]:
    yield "kornia_ditf", "register_backbones", list(_BuiltIn().register_backbones())
    yield "kornia_ditf", "register_datasets", list(_BuiltIn().register_datasets())
    for entry in sorted(entry_points(group=hookspecs.PROJECT), key=lambda entry: entry.name):
        try:
            answers = _ask(entry)
        except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
            _leave_out(entry.name, f"{type(error).__name__}: {error}")
        else:
            for hook, specs in answers.items():
                yield entry.name, hook, specs


def _ask(entry: EntryPoint) -> dict[str, list[object]]:
    # A manager for each plugin: one that raises in a hook would stop the call for all.
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(entry.load(), name=entry.name)
    manager.check_pending()
    return {
        hook: [spec for specs in getattr(manager.hook, hook)() for spec in specs] for hook in _KINDS
    }


def _leave_out(origin: str, reason: str) -> None:
    warnings.warn(f"plugin {origin!r} is left out: {reason}", PluginWarning, stacklevel=2)
