# The public names and where each is defined; `__init__.py` loads them from here when first used.

from .adapters.entries import descriptor_entry, matcher_entry
from .adapters.hosts import use_in
from .adapters.kornia import DiTFDescriptor, DiTFFeature
from .adapters.kornia_matcher import DiTFMatcher, create_matcher
from .adapters.matchers import CosineMatcher, RatioMatcher
from .adapters.opencv import (
    OpenCVFeature,
    to_dmatches,
    to_image_features,
    to_keypoints,
    to_opencv,
)
from .backbones.base import Backbone
from .backbones.diffusers_backbone import DiffusersBackbone
from .backbones.module import ModuleBackbone
from .backbones.spec import BackboneSpec
from .backbones.video import VideoBackbone
from .config import DiTFConfig
from .datasets.pairs import Pair, PairDataset
from .datasets.sequences import FrameSequence, SequenceDataset
from .datasets.spec import DatasetSpec
from .dense import DenseDescriptor, DescriptorSpec
from .descriptor import DiTF
from .errors import DiTFError
from .export import export_descriptor, save_onnx
from .fusion import FusedDescriptor
from .massive import channels_of_gates, describe_channels, discard_channels, find_massive_channels
from .matchers.base import ImageMatcher, MatcherSpec
from .matching.flow import Flow, dense_flow
from .matching.joint import joint_pca
from .matching.keypoints import (
    Argmax,
    Target,
    TopK,
    WindowSoftArgmax,
    match_points,
    prepare_target,
    similarity_maps,
)
from .matching.match import match
from .matching.nearest import mutual_nearest, nearest_two
from .matching.poses import instance_distance
from .matching.propagation import (
    LabelPropagator,
    Propagation,
    propagate_masks,
    propagate_points,
)
from .matching.refinement import refine
from .matching.verification import Verification, verify
from .preprocess import as_image, fit_image, read_image
from .projection.descriptor import ProjectedDescriptor
from .projection.learn import learn_projection
from .projection.stored import Projection
from .protocols.evaluate import evaluate_matches, evaluate_pair
from .protocols.fitting import prepare_image
from .protocols.presets import find_protocol, list_protocols
from .protocols.protocol import Protocol
from .protocols.result import PairResult
from .protocols.select import select_pairs
from .protocols.sequences import SequenceResult, evaluate_sequence
from .registry.calibrate import calibrate
from .registry.datasets import list_datasets, load_dataset
from .registry.hookspecs import hookimpl
from .registry.loggers import LoggedRun, LoggerSpec
from .registry.lookup import (
    create_descriptor,
    create_ditf,
    find_backbone,
    find_descriptor,
    list_backbones,
    list_descriptors,
)
from .registry.matchers import find_matcher, list_matchers, load_matcher
from .registry.treatments import find_treatment, list_treatments
from .registry.upsamplers import find_upsampler, list_upsamplers
from .search.alignment import align_matches
from .search.verified import Attempt, ImageMatches, match_images
from .sfm.folder import FolderMatches, match_folder
from .sfm.graph import CorrespondenceGraph, ImagePair, ViewedImage, merge_keypoints
from .tiled import TiledDescriptor
from .treatments import (
    TREATMENTS,
    Treatment,
    TreatmentSpec,
    apply_treatment,
    modulate,
    parse_treatment,
)
from .types import Conditioning, DescriptorMap, Discarded, Frame, Matches, Tap
from .types.shards import read_shards
from .upsamplers import UpsampledDescriptor, Upsampler, UpsamplerSpec, parse_upsampler
from .utils.picture import Picture, save_picture
from .video.describe import VideoDiTF, describe_video
from .video.frames import VideoFrame, read_frames
from .viz.matches import draw_matches
from .viz.pca import draw_pca
from .viz.similarity import draw_similarity

__all__ = [
    "TREATMENTS",
    "Argmax",
    "Attempt",
    "Backbone",
    "BackboneSpec",
    "Conditioning",
    "CorrespondenceGraph",
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
    "Discarded",
    "Flow",
    "FolderMatches",
    "Frame",
    "FrameSequence",
    "FusedDescriptor",
    "ImageMatcher",
    "ImageMatches",
    "ImagePair",
    "LabelPropagator",
    "LoggedRun",
    "LoggerSpec",
    "MatcherSpec",
    "Matches",
    "ModuleBackbone",
    "OpenCVFeature",
    "Pair",
    "PairDataset",
    "PairResult",
    "Picture",
    "ProjectedDescriptor",
    "Projection",
    "Propagation",
    "Protocol",
    "RatioMatcher",
    "SequenceDataset",
    "SequenceResult",
    "Tap",
    "Target",
    "TiledDescriptor",
    "TopK",
    "Treatment",
    "TreatmentSpec",
    "UpsampledDescriptor",
    "Upsampler",
    "UpsamplerSpec",
    "Verification",
    "VideoBackbone",
    "VideoDiTF",
    "VideoFrame",
    "ViewedImage",
    "WindowSoftArgmax",
    "align_matches",
    "apply_treatment",
    "as_image",
    "calibrate",
    "channels_of_gates",
    "create_descriptor",
    "create_ditf",
    "create_matcher",
    "dense_flow",
    "describe_channels",
    "describe_video",
    "descriptor_entry",
    "discard_channels",
    "draw_matches",
    "draw_pca",
    "draw_similarity",
    "evaluate_matches",
    "evaluate_pair",
    "evaluate_sequence",
    "export_descriptor",
    "find_backbone",
    "find_descriptor",
    "find_massive_channels",
    "find_matcher",
    "find_protocol",
    "find_treatment",
    "find_upsampler",
    "fit_image",
    "hookimpl",
    "instance_distance",
    "joint_pca",
    "learn_projection",
    "list_backbones",
    "list_datasets",
    "list_descriptors",
    "list_matchers",
    "list_protocols",
    "list_treatments",
    "list_upsamplers",
    "load_dataset",
    "load_matcher",
    "match",
    "match_folder",
    "match_images",
    "match_points",
    "matcher_entry",
    "merge_keypoints",
    "modulate",
    "mutual_nearest",
    "nearest_two",
    "parse_treatment",
    "parse_upsampler",
    "prepare_image",
    "prepare_target",
    "propagate_masks",
    "propagate_points",
    "read_frames",
    "read_image",
    "read_shards",
    "refine",
    "save_onnx",
    "save_picture",
    "select_pairs",
    "similarity_maps",
    "to_dmatches",
    "to_image_features",
    "to_keypoints",
    "to_opencv",
    "use_in",
    "verify",
]
