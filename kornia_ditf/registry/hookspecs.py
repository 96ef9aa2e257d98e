"""Every hook that a plugin may implement; docs/hooks.md shows each with its exact signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    import typer

    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.datasets.spec import DatasetSpec
    from kornia_ditf.dense import DescriptorSpec
    from kornia_ditf.matchers.base import MatcherSpec
    from kornia_ditf.registry.loggers import LoggerSpec
    from kornia_ditf.treatments import TreatmentSpec
    from kornia_ditf.upsamplers import UpsamplerSpec

PROJECT = "kornia_ditf"
API = 1
"""Raised when a plugin that was written for these hooks would no longer work."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_backbones() -> Iterable[BackboneSpec]:
    """Return the backbones that this plugin adds."""


@hookspec
def register_descriptors() -> Iterable[DescriptorSpec]:
    """Return the dense descriptors that this plugin adds and that are no DiT."""


@hookspec
def register_datasets() -> Iterable[DatasetSpec]:
    """Return the data sets of image pairs that this plugin adds."""


@hookspec
def register_treatments() -> Iterable[TreatmentSpec]:
    """Return the steps that this plugin adds to those of which treatments are composed."""


@hookspec
def register_upsamplers() -> Iterable[UpsamplerSpec]:
    """Return the upsamplers of descriptor maps that this plugin adds."""


@hookspec
def register_matchers() -> Iterable[MatcherSpec]:
    """Return the image matchers that this plugin adds."""


@hookspec
def register_loggers() -> Iterable[LoggerSpec]:
    """Return the trackers of experiments that this plugin adds."""


@hookspec
def register_commands(cli: typer.Typer) -> None:
    """Add commands to the command line.

    Args:
        cli: an empty Typer application of this plugin's own; its commands are joined to
            `kornia-ditf`.
    """
