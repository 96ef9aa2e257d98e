"""Matching descriptors: nearest neighbours, keypoints, flow, propagation, verification."""
