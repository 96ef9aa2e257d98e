"""Matching descriptors: nearest neighbours, keypoints, flow, propagation, verification."""

from kornia_ditf.matching.keypoints import match_points, similarity_maps
from kornia_ditf.matching.match import match
from kornia_ditf.matching.nearest import mutual_nearest, nearest_two

__all__ = ["match", "match_points", "mutual_nearest", "nearest_two", "similarity_maps"]
