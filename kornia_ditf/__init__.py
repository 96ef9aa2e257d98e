"""Diffusion Transformers as dense descriptors and matchers for Kornia and OpenCV.

Importing this loads no model library; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kornia_ditf.adapters.entries import descriptor_entry, matcher_entry
    from kornia_ditf.adapters.hosts import use_in
    from kornia_ditf.adapters.kornia import DiTFDescriptor, DiTFFeature
    from kornia_ditf.adapters.kornia_matcher import CosineMatcher, DiTFMatcher, create_matcher
    from kornia_ditf.adapters.opencv import (
        OpenCVFeature,
        to_dmatches,
        to_image_features,
        to_keypoints,
        to_opencv,
    )
    from kornia_ditf.backbone import Backbone
    from kornia_ditf.dense import DenseDescriptor
    from kornia_ditf.descriptor import DiTF, DiTFConfig
    from kornia_ditf.diffusers_backbone import DiffusersBackbone
    from kornia_ditf.errors import DiTFError
    from kornia_ditf.export import export_descriptor, save_onnx
    from kornia_ditf.fusion import FusedDescriptor
    from kornia_ditf.hookspecs import hookimpl
    from kornia_ditf.massive import describe_channels, discard_channels, find_massive_channels
    from kornia_ditf.matching import match, match_points, mutual_nearest, similarity_maps
    from kornia_ditf.modulation import TREATMENTS, modulate, treat
    from kornia_ditf.picture import draw_matches, save_picture
    from kornia_ditf.preprocess import as_image, fit_image, read_image
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
    from kornia_ditf.types import Conditioning, DescriptorMap, Frame, Matches, Tap

_HOMES = {
    "adapters.entries": ("descriptor_entry", "matcher_entry"),
    "adapters.hosts": ("use_in",),
    "adapters.kornia": ("DiTFDescriptor", "DiTFFeature"),
    "adapters.kornia_matcher": ("CosineMatcher", "DiTFMatcher", "create_matcher"),
    "adapters.opencv": (
        "OpenCVFeature",
        "to_dmatches",
        "to_image_features",
        "to_keypoints",
        "to_opencv",
    ),
    "backbone": ("Backbone",),
    "dense": ("DenseDescriptor",),
    "descriptor": ("DiTF", "DiTFConfig"),
    "diffusers_backbone": ("DiffusersBackbone",),
    "errors": ("DiTFError",),
    "export": ("export_descriptor", "save_onnx"),
    "fusion": ("FusedDescriptor",),
    "hookspecs": ("hookimpl",),
    "massive": ("describe_channels", "discard_channels", "find_massive_channels"),
    "matching": ("match", "match_points", "mutual_nearest", "similarity_maps"),
    "modulation": ("TREATMENTS", "modulate", "treat"),
    "picture": ("draw_matches", "save_picture"),
    "preprocess": ("as_image", "fit_image", "read_image"),
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
    "types": ("Conditioning", "DescriptorMap", "Frame", "Matches", "Tap"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "TREATMENTS",
    "Backbone",
    "BackboneSpec",
    "Conditioning",
    "CosineMatcher",
    "DatasetSpec",
    "DenseDescriptor",
    "DescriptorMap",
    "DescriptorSpec",
    "DiTF",
    "DiTFConfig",
    "DiTFDescriptor",
    "DiTFError",
    "DiTFFeature",
    "DiTFMatcher",
    "DiffusersBackbone",
    "Frame",
    "FusedDescriptor",
    "Matches",
    "OpenCVFeature",
    "Tap",
    "as_image",
    "create_descriptor",
    "create_ditf",
    "create_matcher",
    "describe_channels",
    "descriptor_entry",
    "discard_channels",
    "draw_matches",
    "export_descriptor",
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
    "matcher_entry",
    "modulate",
    "mutual_nearest",
    "read_image",
    "save_onnx",
    "save_picture",
    "similarity_maps",
    "to_dmatches",
    "to_image_features",
    "to_keypoints",
    "to_opencv",
    "treat",
    "use_in",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
