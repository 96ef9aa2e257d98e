"""Diffusion Transformers as dense descriptors and matchers for Kornia and OpenCV.

Importing this loads no model library; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kornia_ditf.backbone import Backbone
    from kornia_ditf.dense import DenseDescriptor
    from kornia_ditf.descriptor import DiTF, DiTFConfig
    from kornia_ditf.diffusers_backbone import DiffusersBackbone
    from kornia_ditf.errors import DiTFError
    from kornia_ditf.flow import Flow, dense_flow
    from kornia_ditf.fusion import FusedDescriptor
    from kornia_ditf.hookspecs import hookimpl
    from kornia_ditf.massive import describe_channels, discard_channels, find_massive_channels
    from kornia_ditf.matching import match
    from kornia_ditf.modulation import TREATMENTS, describe_tap, modulate, treat
    from kornia_ditf.nearest import mutual_nearest
    from kornia_ditf.picture import draw_matches, save_picture
    from kornia_ditf.preprocess import as_image, fit_image, read_image
    from kornia_ditf.propagation import (
        LabelPropagator,
        Propagation,
        propagate_masks,
        propagate_points,
    )
    from kornia_ditf.refinement import refine
    from kornia_ditf.registry import (
        create_descriptor,
        create_ditf,
        find_backbone,
        find_descriptor,
        list_backbones,
        list_datasets,
        list_descriptors,
    )
    from kornia_ditf.spec import BackboneSpec, DatasetSpec, DescriptorSpec
    from kornia_ditf.transfer import (
        Argmax,
        Target,
        TopK,
        WindowSoftArgmax,
        match_points,
        prepare_target,
        similarity_maps,
    )
    from kornia_ditf.types import Conditioning, DescriptorMap, Frame, Matches, Tap
    from kornia_ditf.verification import Verification, verify

_HOMES = {
    "backbone": ("Backbone",),
    "dense": ("DenseDescriptor",),
    "descriptor": ("DiTF", "DiTFConfig"),
    "diffusers_backbone": ("DiffusersBackbone",),
    "errors": ("DiTFError",),
    "flow": ("Flow", "dense_flow"),
    "fusion": ("FusedDescriptor",),
    "hookspecs": ("hookimpl",),
    "massive": ("describe_channels", "discard_channels", "find_massive_channels"),
    "matching": ("match",),
    "modulation": ("TREATMENTS", "describe_tap", "modulate", "treat"),
    "nearest": ("mutual_nearest",),
    "picture": ("draw_matches", "save_picture"),
    "preprocess": ("as_image", "fit_image", "read_image"),
    "propagation": ("LabelPropagator", "Propagation", "propagate_masks", "propagate_points"),
    "refinement": ("refine",),
    "registry": (
        "create_descriptor",
        "create_ditf",
        "find_backbone",
        "find_descriptor",
        "list_backbones",
        "list_datasets",
        "list_descriptors",
    ),
    "spec": ("BackboneSpec", "DatasetSpec", "DescriptorSpec"),
    "transfer": (
        "Argmax",
        "Target",
        "TopK",
        "WindowSoftArgmax",
        "match_points",
        "prepare_target",
        "similarity_maps",
    ),
    "types": ("Conditioning", "DescriptorMap", "Frame", "Matches", "Tap"),
    "verification": ("Verification", "verify"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "TREATMENTS",
    "Argmax",
    "Backbone",
    "BackboneSpec",
    "Conditioning",
    "DatasetSpec",
    "DenseDescriptor",
    "DescriptorMap",
    "DescriptorSpec",
    "DiTF",
    "DiTFConfig",
    "DiTFError",
    "DiffusersBackbone",
    "Flow",
    "Frame",
    "FusedDescriptor",
    "LabelPropagator",
    "Matches",
    "Propagation",
    "Tap",
    "Target",
    "TopK",
    "Verification",
    "WindowSoftArgmax",
    "as_image",
    "create_descriptor",
    "create_ditf",
    "dense_flow",
    "describe_channels",
    "describe_tap",
    "discard_channels",
    "draw_matches",
    "find_backbone",
    "find_descriptor",
    "find_massive_channels",
    "fit_image",
    "hookimpl",
    "list_backbones",
    "list_datasets",
    "list_descriptors",
    "match",
    "match_points",
    "modulate",
    "mutual_nearest",
    "prepare_target",
    "propagate_masks",
    "propagate_points",
    "read_image",
    "refine",
    "save_picture",
    "similarity_maps",
    "treat",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
