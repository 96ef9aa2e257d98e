"""Matching descriptors: nearest neighbours, keypoints, flow, propagation, verification."""

from kornia_ditf.matching.nearest import mutual_nearest

__all__ = ["mutual_nearest"]
