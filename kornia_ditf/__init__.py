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
    from kornia_ditf.datasets.pairs import Pair, PairDataset
    from kornia_ditf.datasets.sequences import FrameSequence, SequenceDataset
    from kornia_ditf.dense import DenseDescriptor
    from kornia_ditf.descriptor import DiTF, DiTFConfig
    from kornia_ditf.diffusers_backbone import DiffusersBackbone
    from kornia_ditf.errors import DiTFError
    from kornia_ditf.export import export_descriptor, save_onnx
    from kornia_ditf.flow import Flow, dense_flow
    from kornia_ditf.fusion import FusedDescriptor
    from kornia_ditf.hookspecs import hookimpl
    from kornia_ditf.massive import describe_channels, discard_channels, find_massive_channels
    from kornia_ditf.matching import match
    from kornia_ditf.modulation import TREATMENTS, modulate, treat, unit_tokens
    from kornia_ditf.nearest import mutual_nearest
    from kornia_ditf.picture import draw_matches, save_picture
    from kornia_ditf.preprocess import as_image, fit_image, read_image
    from kornia_ditf.propagation import (
        LabelPropagator,
        Propagation,
        propagate_masks,
        propagate_points,
    )
    from kornia_ditf.protocols.evaluate import PairResult, evaluate_pair
    from kornia_ditf.protocols.fitting import prepare_image
    from kornia_ditf.protocols.presets import find_protocol, list_protocols
    from kornia_ditf.protocols.protocol import Protocol
    from kornia_ditf.protocols.select import select_pairs
    from kornia_ditf.protocols.sequences import SequenceResult, evaluate_sequence
    from kornia_ditf.refinement import refine
    from kornia_ditf.registry import (
        create_descriptor,
        create_ditf,
        find_backbone,
        find_descriptor,
        list_backbones,
        list_datasets,
        list_descriptors,
        load_dataset,
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
    "datasets.pairs": ("Pair", "PairDataset"),
    "datasets.sequences": ("FrameSequence", "SequenceDataset"),
    "dense": ("DenseDescriptor",),
    "descriptor": ("DiTF", "DiTFConfig"),
    "diffusers_backbone": ("DiffusersBackbone",),
    "errors": ("DiTFError",),
    "flow": ("Flow", "dense_flow"),
    "fusion": ("FusedDescriptor",),
    "export": ("export_descriptor", "save_onnx"),
    "hookspecs": ("hookimpl",),
    "massive": ("describe_channels", "discard_channels", "find_massive_channels"),
    "matching": ("match",),
    "modulation": ("TREATMENTS", "modulate", "treat", "unit_tokens"),
    "nearest": ("mutual_nearest",),
    "picture": ("draw_matches", "save_picture"),
    "preprocess": ("as_image", "fit_image", "read_image"),
    "refinement": ("refine",),
    "protocols.evaluate": ("PairResult", "evaluate_pair"),
    "protocols.fitting": ("prepare_image",),
    "protocols.presets": ("find_protocol", "list_protocols"),
    "protocols.protocol": ("Protocol",),
    "protocols.select": ("select_pairs",),
    "protocols.sequences": ("SequenceResult", "evaluate_sequence"),
    "registry": (
        "create_descriptor",
        "create_ditf",
        "find_backbone",
        "find_descriptor",
        "list_backbones",
        "list_datasets",
        "list_descriptors",
        "load_dataset",
    ),
    "spec": ("BackboneSpec", "DatasetSpec", "DescriptorSpec"),
    "propagation": ("LabelPropagator", "Propagation", "propagate_masks", "propagate_points"),
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
    "Flow",
    "Frame",
    "FrameSequence",
    "FusedDescriptor",
    "LabelPropagator",
    "Matches",
    "OpenCVFeature",
    "Pair",
    "PairDataset",
    "PairResult",
    "Propagation",
    "Protocol",
    "SequenceDataset",
    "SequenceResult",
    "Tap",
    "Target",
    "TopK",
    "Verification",
    "WindowSoftArgmax",
    "as_image",
    "create_descriptor",
    "create_ditf",
    "create_matcher",
    "dense_flow",
    "describe_channels",
    "descriptor_entry",
    "discard_channels",
    "draw_matches",
    "evaluate_pair",
    "evaluate_sequence",
    "export_descriptor",
    "find_backbone",
    "find_descriptor",
    "find_massive_channels",
    "find_protocol",
    "fit_image",
    "hookimpl",
    "list_backbones",
    "list_datasets",
    "list_descriptors",
    "list_protocols",
    "load_dataset",
    "match",
    "match_points",
    "matcher_entry",
    "modulate",
    "mutual_nearest",
    "prepare_image",
    "prepare_target",
    "propagate_masks",
    "propagate_points",
    "read_image",
    "refine",
    "save_onnx",
    "save_picture",
    "select_pairs",
    "similarity_maps",
    "to_dmatches",
    "to_image_features",
    "to_keypoints",
    "to_opencv",
    "treat",
    "unit_tokens",
    "use_in",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
