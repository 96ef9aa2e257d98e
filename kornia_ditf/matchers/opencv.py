"""OpenCV's local features, matched by mutual nearest neighbours with a ratio test."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kornia_ditf.matchers.base import ImageMatcher, MatcherSpec
from kornia_ditf.matching.detection import NamedDetector, grey_pixels, opencv_factory
from kornia_ditf.matching.nearest import check_limits, mutual_nearest
from kornia_ditf.types import Matches
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.utils.opencv import find_opencv

_SOURCES = {
    "sift": "Lowe, IJCV 2004",
    "orb": "Rublee et al., ICCV 2011",
    "akaze": "Alcantarilla et al., BMVC 2013",
    "kaze": "Alcantarilla et al., ECCV 2012",
    "brisk": "Leutenegger et al., ICCV 2011",
}


class LocalFeatures(ImageMatcher):
    """Matches local features: subclasses find keypoints (N, 2) and their descriptors (N, D).

    Args:
        ratio: keep matches whose distance is at most `ratio` times that to the second nearest, in
            both directions; None keeps all mutual nearest neighbours.
        max_keypoints: of each image; the strongest are kept.
    """

    def __init__(self, *, ratio: float | None, max_keypoints: int) -> None:
        check_integer("max_keypoints", max_keypoints, 1)
        check_limits(None, ratio, 0)
        self.ratio, self.max_keypoints = ratio, max_keypoints

    def compare(self, features_a: Any, features_b: Any) -> Matches:
        points_a, vectors_a, *_ = features_a
        points_b, vectors_b, *_ = features_b
        if not len(points_a) or not len(points_b):
            return Matches(points_a[:0], points_b[:0], points_a.new_empty(0))
        pairs, scores = mutual_nearest(vectors_a, vectors_b, ratio=self.ratio)
        return Matches(points_a[pairs[:, 0]], points_b[pairs[:, 1]], scores)


class OpenCVMatcher(LocalFeatures):
    """A feature of OpenCV by name: `sift`, `orb`, `akaze` ...

    Distances are Euclidean for SIFT and KAZE, and Hamming's for the binary ones.

    Args:
        name: as in `cv2.SIFT_create`, in small letters.
        ratio: of the distances to the nearest and the second nearest, in (0, 1]; None tests none.
        max_keypoints: of each image; the strongest are kept.

    Raises:
        InvalidArgumentError: the installed OpenCV has no such feature.
    """

    def __init__(self, name: str, *, ratio: float | None = 0.8, max_keypoints: int = 2048) -> None:
        super().__init__(ratio=ratio, max_keypoints=max_keypoints)
        self.feature = NamedDetector(name, max_keypoints).detector
        self.binary = name not in ("sift", "kaze")
        if self.binary and ratio is not None:
            self.ratio = ratio**0.5  # a Hamming distance is the square of one between signs

    def features(self, image: Tensor, name: str) -> tuple[Tensor, Tensor]:
        keypoints, vectors = self.feature.detectAndCompute(grey_pixels(image), None)
        if vectors is None or not len(keypoints):
            return torch.empty(0, 2), torch.empty(0, 1)
        strength = torch.tensor([keypoint.response for keypoint in keypoints])
        kept = strength.argsort(descending=True, stable=True)[: self.max_keypoints]
        points = torch.tensor([keypoint.pt for keypoint in keypoints])
        if self.binary:
            vectors = np.unpackbits(vectors, axis=1).astype(np.float32) * 2 - 1
        return points[kept], torch.from_numpy(vectors)[kept]


def _lacks(name: str) -> str:
    import cv2

    if opencv_factory(name) is not None:
        return ""
    here = find_opencv().distribution or "opencv-python"
    contrib = here.replace("opencv-python", "opencv-contrib-python")
    return (
        f"OpenCV {cv2.__version__} has no {name.upper()} without its contrib modules: "
        f"pip uninstall -y {here} && pip install {contrib}"
    )


def _spec(name: str, source: str) -> MatcherSpec:
    return MatcherSpec(
        name=name,
        load=partial(OpenCVMatcher, name),
        source=source,
        license="Apache-2.0",
        lacks=partial(_lacks, name),
    )


SPECS = tuple(_spec(name, source) for name, source in _SOURCES.items())
