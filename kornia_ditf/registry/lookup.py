"""Finding backbones, descriptors and data sets by name, and loading them.

Built-in ones are found first; plugins are imported only for names that are not built in, or when
all are listed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

import torch

from kornia_ditf import backbones, datasets, matchers
from kornia_ditf.backbones.base import Backbone
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.calibration.store import with_preset
from kornia_ditf.config import DiTFConfig
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import (
    DiTFError,
    InvalidArgumentError,
    MissingExtraError,
    PluginError,
    UnknownBackboneError,
)
from kornia_ditf.fusion import FUSIONS
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.loading.memory import LoadedModel, is_in_memory, take_apart
from kornia_ditf.loading.source import as_folder, explain, is_hub_id, is_path, near_folder
from kornia_ditf.loading.weight_file import as_file
from kornia_ditf.matchers.base import ImageMatcher, MatcherSpec
from kornia_ditf.matching.joint import PCA, check_pca
from kornia_ditf.projection.descriptor import ProjectedDescriptor
from kornia_ditf.projection.stored import Projection
from kornia_ditf.registry import hookspecs, loggers, treatments, upsamplers
from kornia_ditf.registry.catalogue import AnySpec, Catalogue
from kornia_ditf.registry.families import (
    check_fits,
    describe_checkpoint,
    describe_file,
    describe_loaded,
    file_options,
    fusion_spec,
    join_specs,
)
from kornia_ditf.registry.options import no_such_option, options_of
from kornia_ditf.registry.plugins import Plugin, describe_error, installed_plugins
from kornia_ditf.registry.treatments import read_config
from kornia_ditf.registry.upsamplers import find_upsampler
from kornia_ditf.tiled import TiledDescriptor
from kornia_ditf.upsamplers import UpsampledDescriptor
from kornia_ditf.utils.checks import check_integer, did_you_mean, read_dtype
from kornia_ditf.utils.provenance import installed_instead

DEFAULT_BACKBONE = "nano"

Spec: TypeAlias = BackboneSpec | DescriptorSpec
DITF_OPTIONS = frozenset(each.name for each in fields(DiTFConfig))
_MADE: Mapping[type, type] = {
    BackboneSpec: Backbone,
    DescriptorSpec: DenseDescriptor,
    MatcherSpec: ImageMatcher,
    DatasetSpec: object,
}


def list_backbones() -> dict[str, BackboneSpec]:
    """List the installed backbones by name, without loading a model library.

    Example:
        >>> list_backbones()["flux.1-dev"].block
        28
    """
    return {spec.name: spec for spec in CATALOGUE.of(BackboneSpec)}


def find_backbone(name: str | Path, **hub: Any) -> BackboneSpec:
    """Find a backbone's spec by name, or create one for a model in the diffusers layout.

    Args:
        name: an installed backbone's name or hub id, another hub id, or a local folder. A model
            that is not registered takes the class of its family and the neutral preset; its two
            configurations are read for that.
        hub: `revision`, `token`, `cache_dir` and `local_files_only`, for reading them.

    Raises:
        UnknownBackboneError: it is none of these.
        CheckpointError: it holds no model of a known family.
        HubError: the hub does not give the configurations.
    """
    text = str(name)
    found = CATALOGUE.get(text)
    if isinstance(found, BackboneSpec):
        return found
    if not text.strip():
        raise UnknownBackboneError(
            "the name of a backbone is empty; name one that is installed, a hub id or a folder"
        )
    path = as_file(name)
    if path is not None:
        return describe_file(path, CATALOGUE.of(BackboneSpec), **hub)
    if as_folder(name) is not None:
        return describe_checkpoint(name, CATALOGUE.of(BackboneSpec), **hub)
    if is_path(text):
        raise UnknownBackboneError(explain(text))
    if is_hub_id(text):
        for spec in CATALOGUE.of(BackboneSpec):
            if spec.repo.lower() == text.lower():
                return spec
        return describe_checkpoint(name, CATALOGUE.of(BackboneSpec), **hub)
    known = list_descriptors()
    raise UnknownBackboneError(
        f"no backbone is named {text!r} and no such folder exists"
        f"{did_you_mean(text, known) or near_folder(text)} (installed: {', '.join(known)})"
    )


def list_descriptors() -> dict[str, Spec]:
    """List the installed dense descriptors by name, backbones first, without loading any.

    Example:
        >>> list_descriptors()["nano"].width
        160
    """
    found = (s for s in CATALOGUE if isinstance(s, BackboneSpec | DescriptorSpec))
    return {spec.name: spec for spec in found}


def find_descriptor(name: str | Path, **hub: Any) -> Spec:
    """Find the spec of a dense descriptor or backbone by name.

    Args:
        name: an installed descriptor's, whatever `find_backbone` takes, or several of these with
            a `+` between them, which are fused.
        hub: as for `find_backbone`.

    Raises:
        UnknownBackboneError: neither a descriptor nor a backbone, see `find_backbone`.
        CheckpointError: a folder holds no model of a known family.
        HubError: the hub does not give the configurations.
    """
    text = str(name)
    found = CATALOGUE.get(text)
    if isinstance(found, DescriptorSpec):
        return found
    if "+" in text and as_folder(name) is None:
        specs = [find_descriptor(part, **hub) for part in text.split("+")]
        return fusion_spec(join_specs(text, specs), _create_part)
    return find_backbone(name, **hub)


def create_descriptor(
    name: str | Path | Any = DEFAULT_BACKBONE,
    *,
    source: str | Path | Any = None,
    tiles: int = 1,
    upsample: Any = None,
    pca: PCA | None = None,
    projection: Projection | str | Path | None = None,
    **options: Any,
) -> DenseDescriptor:
    """Load a dense descriptor with its preset: a DiTF on a backbone, or one that a plugin adds.

    Args:
        name: an installed descriptor or backbone, or a hub id or folder in the diffusers layout;
            or several of these with a `+` between them, which are fused. Or a model in memory: a
            diffusers pipeline, or (transformer, vae) or (transformer, vae, scheduler). It is used
            where and as it is, adapters included, its text encoders embed the prompts, and the
            preset is that of the hub id it was loaded from, or else the neutral one.
        source: where a named one's weights are, if not in its own repository: a folder, a hub id,
            or a model in memory.
        tiles: describe images in tiles, at this multiple of the preset's longest side; see
            `TiledDescriptor`.
        upsample: give maps on a finer grid: `"bilinear(4)"`, `"joint_bilateral(2px)"` or another
            upsampler (see `parse_upsampler`), an `Upsampler`, or a module such as AnyUp's.
        pca: joint PCA with which `match_images` and matchers reduce pairs, see `joint_pca`; None
            takes the preset's, which is 0 (none) but for some fusions.
        projection: reduce the channels by this projection, or the file of one; see
            `learn_projection`.
        options: for a backbone, fields of `DiTFConfig` change the preset (`block`, `timestep` ...),
            `preset` is the file of a calibrated one or `"none"`, and all others go
            to its loader (`dtype`, `device`, `offload`, `revision`, `guidance` ...). For a fusion,
            `weights` and `grid` are those of `FusedDescriptor`, `options` holds each part's, and
            all others go to every part. For others all go to the loader.

    Raises:
        UnknownBackboneError: there is no such descriptor, or no family has such a transformer.
        InvalidArgumentError: an option is unknown or out of range.
        CheckpointError: the weights are incomplete or damaged.
        HubError: the weights cannot be had.

    Example:
        >>> descriptor = create_descriptor("nano", treatment="raw")
        >>> descriptor.config.treatment
        'raw'
        >>> nano = descriptor.backbone.transformer
        >>> create_descriptor((nano, None)).backbone.transformer is nano
        True
    """
    spec, place = _find_model(name, source, options, find_descriptor, CATALOGUE)
    upsampler = find_upsampler(upsample)  # before anything is loaded
    descriptor: DenseDescriptor
    if isinstance(spec, BackboneSpec):
        descriptor = _create_ditf(spec, place, options)
    else:
        places = () if not isinstance(place, LoadedModel) else (place,)
        if isinstance(place, str | Path):
            options["source"] = place
        descriptor = load_spec(spec, places, options)
    if pca is not None:
        descriptor.pca = check_pca(pca)
    if tiles != 1:
        descriptor = TiledDescriptor(descriptor, tiles, multiple=spec.pixels_per_token)
    if projection is not None:
        descriptor = ProjectedDescriptor(descriptor, projection)
        descriptor.pca = check_pca(pca or 0)
    return descriptor if upsampler is None else UpsampledDescriptor(descriptor, upsampler)


def create_ditf(
    name: str | Path | Any = DEFAULT_BACKBONE, *, source: str | Path | Any = None, **options: Any
) -> DiTF:
    """Load a backbone and create a DiTF descriptor; like `create_descriptor`, for backbones only.

    Arguments and errors as there. A DiTF also shows its taps, blocks and massive channels.
    """
    specs = CATALOGUE.of(BackboneSpec)
    spec, place = _find_model(name, source, options, find_backbone, specs)
    return _create_ditf(spec, place, options)


def _find_model(
    name: Any,
    source: Any,
    options: Mapping[str, Any],
    find: Callable[..., Any],
    specs: Iterable[AnySpec],
) -> tuple[Any, str | Path | LoadedModel | None]:
    """Return the spec of what is named or in memory, and where its weights are said to be."""
    if is_in_memory(name):
        if source is not None:
            raise InvalidArgumentError(
                "pass only a model in memory, or a preset's name with source=the model"
            )
        loaded = take_apart(name)
        return describe_loaded(loaded, specs), loaded
    spec = find(name, **hub_options(options))
    if source is not None and is_in_memory(source):
        return spec, take_apart(source)
    if source is not None and not str(source).strip():
        raise InvalidArgumentError(
            "source must name a folder or a hub id, got an empty string; leave it out to load the "
            "backbone's own weights"
        )
    return spec, source


def _create_ditf(
    spec: BackboneSpec, source: str | Path | LoadedModel | None, options: Mapping[str, Any]
) -> DiTF:
    spec = with_preset(spec, source, options.get("preset"), **hub_options(options))
    changes = {name: options[name] for name in options if name in DITF_OPTIONS}
    loading = {n: options[n] for n in options if n not in DITF_OPTIONS and n != "preset"}
    config = read_config(spec, changes)
    last = max(config.all_blocks)
    check_integer(f"block of {spec.name}", last, 0, spec.blocks - 1)
    place = spec.repo if source is None else source
    if not isinstance(place, LoadedModel):
        loading["block"] = last
        loading = {**file_options(spec, place), **loading}
    ditf = DiTF(load_spec(spec, (place,), loading), config)
    ditf.preset = spec.source
    if "massive_channels" not in changes:
        ditf.channels_from = "preset"
    return ditf


def _create_part(name: str, plugin: str | None, **options: Any) -> DenseDescriptor:
    if plugin is not None and CATALOGUE.get(name) is None:
        raise MissingExtraError(f"{name} comes with a plugin: pip install {plugin}")
    return create_descriptor(name, **options)


def load_spec(spec: AnySpec, places: Any, options: dict[str, Any]) -> Any:
    """Call a spec's loader, and name its plugin where that fails or gives something else."""
    load = spec.load
    if places and isinstance(places[0], LoadedModel):
        load = check_fits(spec, places[0], options)
    if options.get("dtype") is not None:
        options = {**options, "dtype": read_dtype(options["dtype"])}
    needs = spec.needs if isinstance(spec, BackboneSpec) else ""
    installed = installed_instead(needs)
    if installed is not None:
        raise MissingExtraError(
            f"{spec.name} needs {needs}, and {installed} is installed; pip install -U '{needs}'"
        )
    origin = CATALOGUE.origin(spec.load)
    built_in = origin == hookspecs.PROJECT
    try:
        with nullcontext() if built_in else redirect_stdout(sys.stderr):
            made = load(*places, **options)
    except (DiTFError, KeyboardInterrupt, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:  # a plugin's SystemExit too
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and unknown is not None and unknown[1] in options:
            of_ditf = DITF_OPTIONS if isinstance(spec, BackboneSpec) else set()
            raise no_such_option(spec.name, unknown[1], options_of(spec) | of_ditf) from error
        if built_in:
            raise
        raise PluginError(
            f"cannot load {spec.name!r}: its plugin {origin!r} failed with {describe_error(error)}"
        ) from error
    kind = next(made_of for each, made_of in _MADE.items() if isinstance(spec, each))
    if not isinstance(made, kind):
        raise InvalidArgumentError(
            f"load of {spec.name!r} returned a {type(made).__name__}, not a {kind.__name__}; the "
            "plugin that registers it is at fault"
        )
    return made


CATALOGUE: Catalogue[AnySpec] = Catalogue(
    (
        *backbones.SPECS,
        *(fusion_spec(fusion, _create_part) for fusion in FUSIONS),
        *datasets.SPECS,
        *matchers.SPECS,
    ),
    {
        "register_backbones": BackboneSpec,
        "register_descriptors": DescriptorSpec,
        "register_datasets": DatasetSpec,
        "register_matchers": MatcherSpec,
    },
)
CATALOGUES: tuple[Catalogue[Any], ...] = (
    CATALOGUE,
    treatments.CATALOGUE,
    upsamplers.CATALOGUE,
    loggers.CATALOGUE,
)


def ask_plugins() -> tuple[Plugin, ...]:
    """Call every plugin that has not been called yet, and return all with their status.

    Example:
        >>> broken = [plugin.name for plugin in ask_plugins() if plugin.state == "left out"]
    """
    for each in CATALOGUES:
        each.specs()
    return installed_plugins()


def forget_plugins() -> None:
    """Find and call the plugins anew when they are next needed, as after an installation."""
    installed_plugins.cache_clear()
    for each in CATALOGUES:
        each.forget()
