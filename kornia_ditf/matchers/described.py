"""Matches of any dense descriptor: of its tokens, or at the keypoints of a detector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.matchers.base import ImageMatcher
from kornia_ditf.matching.detection import NamedDetector, first_at_position, grey_pixels
from kornia_ditf.matching.joint import reduce_pair
from kornia_ditf.matching.match import match
from kornia_ditf.matching.nearest import RADIUS, mutual_nearest
from kornia_ditf.matching.refinement import refine
from kornia_ditf.types import Matches
from kornia_ditf.utils.checks import check_integer


class DescriptorMatcher(ImageMatcher):
    """Mutual nearest neighbours of a dense descriptor.

    Args:
        descriptor: describes the images.
        detector: `sift`, `orb`, `gftt` or another detector of OpenCV, at whose keypoints
            descriptors are read; None matches the tokens.
        max_keypoints: of each image, with a detector; the strongest are kept.
        ratio: keep matches whose distance is at most `ratio` times that to the second nearest
            beyond 10 pixels, in (0, 1]; None tests none.
        refined: without a detector, move points of B to where the cosine peaks (see `refine`).
        prompt: of both images, where the descriptor reads text.
    """

    def __init__(
        self,
        descriptor: DenseDescriptor,
        *,
        detector: str | None = None,
        max_keypoints: int = 2048,
        ratio: float | None = None,
        refined: bool = True,
        prompt: str | None = None,
    ) -> None:
        check_integer("max_keypoints", max_keypoints, 1)
        self.descriptor, self.ratio, self.refined = descriptor, ratio, refined
        self.detector = None if detector is None else NamedDetector(detector, max_keypoints)
        self.max_keypoints, self.prompt = max_keypoints, prompt

    @property
    def identity(self) -> str:
        return self.descriptor.identity or ""

    def features(self, image: Tensor, name: str) -> Any:
        described = self.descriptor(image, self.prompt)
        if self.detector is None:
            return described
        strongest = sorted(
            self.detector.detect(grey_pixels(image)), key=lambda each: -each.response
        )
        points = torch.tensor([each.pt for each in strongest], device="cpu").reshape(-1, 2)
        points = points[first_at_position(points)][: self.max_keypoints].to(described.data.device)
        return points, described.at(points[None])[0]

    def compare(self, features_a: Any, features_b: Any) -> Matches:
        if self.detector is None:
            features_a, features_b = reduce_pair(features_a, features_b, self.descriptor.pca)
            found = match(features_a, features_b, ratio=self.ratio, radius=RADIUS)
            return refine(found, features_a, features_b) if self.refined else found
        (points_a, vectors_a), (points_b, vectors_b) = features_a, features_b
        pairs, scores = mutual_nearest(
            vectors_a, vectors_b, ratio=self.ratio, points_a=points_a, points_b=points_b
        )
        return Matches(points_a[pairs[:, 0]], points_b[pairs[:, 1]], scores)
