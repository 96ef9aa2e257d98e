"""Dense descriptors with the interface of OpenCV's features, and converters to OpenCV's types.

`OpenCVFeature` does not subclass `cv2.Feature2D`: OpenCV crashes when its C++ code calls a feature
written in Python. It has the same methods instead and takes the same images: uint8, BGR.
"""

# ruff: noqa: N802, N803 - OpenCV's names

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.adapters.wrapped import Pretrained, as_descriptor
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.checks import check_matches
from kornia_ditf.matching.detection import (
    NamedDetector,
    allowed_at,
    first_at_position,
    grid_centres,
    measures_scale,
    read_at_scales,
)
from kornia_ditf.preprocess import MIN_SIDE
from kornia_ditf.registry.lookup import DEFAULT_BACKBONE
from kornia_ditf.types import DescriptorMap, Matches
from kornia_ditf.utils.checks import check_integer

Array = npt.NDArray[Any]
KeyPoints = tuple[cv2.KeyPoint, ...]


class OpenCVFeature(Pretrained):
    """A dense descriptor with the methods of `cv2.SIFT`; safe to call from several threads.

    Args:
        descriptor: a dense descriptor, or a name or folder for `create_descriptor`.
        detector: an object with OpenCV's `detect(image, mask)`, or the name of one of OpenCV's
            detectors (`sift`, `orb`, `gftt` ...); None takes all token centres. A position that a
            detector reports several times, as SIFT does for each orientation, is kept once.
        max_keypoints: maximum number per image: the strongest of a detector's, or an even
            selection of the tokens.
        multiscale: read large keypoints from a smaller copy of the image, so that an object that
            appears at another size has similar descriptors. It takes about twice the time. None
            does so with `detector="sift"`, whose diameters measure scale, where the descriptor
            resizes images.
        options: of `create_descriptor`, with a name.

    Raises:
        InvalidArgumentError: no such detector, `descriptor` is another module, or options were
            passed with an existing descriptor; or as `create_descriptor`.

    Example:
        >>> import numpy as np
        >>> feature = OpenCVFeature("nano", long_side=96)
        >>> keypoints, descriptors = feature.detectAndCompute(np.zeros((64, 96, 3), np.uint8), None)
        >>> len(keypoints) == len(descriptors), descriptors.dtype
        (True, dtype('float32'))
    """

    def __init__(
        self,
        descriptor: DenseDescriptor | str | Path = DEFAULT_BACKBONE,
        *,
        detector: Any = None,
        max_keypoints: int | None = None,
        multiscale: bool | None = None,
        **options: Any,
    ) -> None:
        if max_keypoints is not None:
            check_integer("max_keypoints", max_keypoints, minimum=1)
        if multiscale is None:
            multiscale = measures_scale(detector)
        if isinstance(detector, str):
            named = detector != "grid"
            detector = NamedDetector(detector, max_keypoints) if named else None
        if detector is not None and not callable(getattr(detector, "detect", None)):
            raise InvalidArgumentError(
                f"detector must have OpenCV's detect, got {type(detector).__name__}"
            )
        self.descriptor = as_descriptor(descriptor, options)
        self.detector, self.max_keypoints = detector, max_keypoints
        self.multiscale = multiscale
        self._last: tuple[object, dict[int | None, DescriptorMap]] | None = None

    def __repr__(self) -> str:
        return (
            f"OpenCVFeature({self.descriptor!r}, detector={self.detector!r}, "
            f"max_keypoints={self.max_keypoints}, multiscale={self.multiscale})"
        )

    def detect(self, image: Any, mask: Any = None) -> Any:
        """Detect keypoints.

        Args:
            image: uint8, grey (H, W), BGR or BGRA (H, W, 4); or a sequence of such images.
            mask: shape (H, W), nothing is found where it is 0; or one for each image.

        Returns:
            a tuple of `cv2.KeyPoint`, empty where nothing is found; or one such for each image.

        Raises:
            InvalidArgumentError: a wrong shape or dtype.
            ImageError: the image is too thin.
        """
        if isinstance(image, list | tuple):
            masks = [None] * len(image) if mask is None else mask
            return tuple(self.detect(*pair) for pair in zip(image, masks, strict=True))
        pixels = _as_pixels(image)
        allowed = _as_mask(mask, pixels)
        # Nothing is found in an empty image or one of a few pixels, as OpenCV's own find nothing.
        if min(pixels.shape[:2]) < MIN_SIDE or (allowed is not None and not allowed.any()):
            return ()
        if self.detector is None:
            with torch.no_grad():
                maps = self._describe(pixels)
            centres = grid_centres(maps, self.max_keypoints)
            if allowed is not None:
                centres = centres[allowed_at(centres, torch.from_numpy(allowed))]
            height, width = maps.frame.image_size
            return to_keypoints(centres, size=max(height / maps.grid[0], width / maps.grid[1]))
        found = tuple(self.detector.detect(pixels, allowed))
        if found:
            kept = first_at_position(torch.from_numpy(cv2.KeyPoint.convert(found)))
            found = tuple(keypoint for keypoint, keep in zip(found, kept, strict=True) if keep)
        if self.max_keypoints is not None and len(found) > self.max_keypoints:
            found = tuple(sorted(found, key=lambda k: -k.response)[: self.max_keypoints])
        return found

    def compute(self, image: Any, keypoints: Any, descriptors: Any = None) -> tuple[Any, Any]:
        """Describe keypoints, which may come from anywhere; all are kept.

        Args:
            image: as in `detect`.
            keypoints: a sequence of `cv2.KeyPoint`, or one sequence per image.
            descriptors: ignored.

        Returns:
            the keypoints, and descriptors of unit length, shape (N, D), float32, or None where
            there are no keypoints; or a tuple of each for a sequence of images.

        Raises:
            InvalidArgumentError: a wrong shape or dtype.
            ImageError: the image is too small or too thin.
        """
        if isinstance(image, list | tuple):
            pairs = [self.compute(*each) for each in zip(image, keypoints, strict=True)]
            return tuple(found for found, _ in pairs), tuple(read for _, read in pairs)
        keypoints = tuple(keypoints)
        if not keypoints:
            return (), None
        with torch.no_grad():
            read = self._read(_as_pixels(image), keypoints)
        return keypoints, np.ascontiguousarray(read.numpy())

    def detectAndCompute(
        self,
        image: Any,
        mask: Any = None,
        descriptors: Any = None,
        useProvidedKeypoints: bool = False,
    ) -> tuple[KeyPoints, Array | None]:
        """Detect and describe keypoints; arguments and results as in `detect` and `compute`.

        As in OpenCV's Python binding, `useProvidedKeypoints` returns no keypoints.
        """
        return self.compute(image, () if useProvidedKeypoints else self.detect(image, mask))

    def descriptorSize(self) -> int:
        """Return the number of channels D."""
        return self.descriptor.width

    def descriptorType(self) -> int:
        """Return the descriptors' type, `cv2.CV_32F`."""
        return int(cv2.CV_32F)

    def defaultNorm(self) -> int:
        """Return `cv2.NORM_L2`, which ranks unit vectors as the cosine does."""
        return int(cv2.NORM_L2)

    def empty(self) -> bool:
        """Return False, as a feature that is ready does."""
        return False

    def getDefaultName(self) -> str:
        """Return `Feature2D.` and the descriptor's class name."""
        return f"Feature2D.{type(self.descriptor).__name__}"

    def _read(self, pixels: Array, keypoints: KeyPoints) -> Tensor:
        points = torch.from_numpy(cv2.KeyPoint.convert(keypoints))

        def read(side: int | None) -> Tensor:
            return self._describe(pixels, side).at(points[None])[0].cpu()

        side = self.descriptor.long_side
        if not self.multiscale or side is None:
            return read(None)
        diameters = torch.tensor([keypoint.size for keypoint in keypoints])
        return read_at_scales(read, diameters * side / max(pixels.shape[:2]), side)

    def _describe(self, pixels: Array, side: int | None = None) -> DescriptorMap:
        descriptor = self.descriptor if side is None else self.descriptor.with_long_side(side)
        # detect and compute are often called on one image in turn.
        digest = hashlib.blake2b(pixels.tobytes()).digest()
        key = (digest, pixels.shape, self.descriptor.identity)
        last = self._last  # read once: another thread may replace it meanwhile
        maps = dict(last[1]) if last is not None and last[0] == key else {}
        if descriptor.long_side not in maps:
            rgb = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 2::-1])
            maps[descriptor.long_side] = descriptor(rgb)
            self._last = (key, maps)
        return maps[descriptor.long_side]


def to_keypoints(points: Tensor | Array, size: float = 1.0) -> KeyPoints:
    """Convert points (x, y), shape (N, 2), to OpenCV keypoints of a diameter in pixels."""
    array = points.detach().cpu().numpy() if isinstance(points, Tensor) else points
    return tuple(cv2.KeyPoint(float(x), float(y), size, -1.0, 1.0) for x, y in array)


def to_dmatches(
    indices: Tensor | Array | Sequence[Sequence[int]], distances: Tensor | Array | Sequence[float]
) -> tuple[cv2.DMatch, ...]:
    """Convert index pairs (K, 2) and distances (K,) to OpenCV matches."""
    pairs = np.asarray(indices).reshape(-1, 2).tolist()
    values = np.asarray(distances).reshape(-1).tolist()
    return tuple(cv2.DMatch(a, b, value) for (a, b), value in zip(pairs, values, strict=True))


def to_opencv(
    matches: Matches, size: float = 1.0
) -> tuple[KeyPoints, KeyPoints, tuple[cv2.DMatch, ...]]:
    """Convert the matches of one image pair to OpenCV keypoints and matches.

    Args:
        matches: K matches, as `match` and `match_points` give them.
        size: the keypoints' diameter in pixels.

    Returns:
        K keypoints each, and K matches between equal rows, whose distance is 1 - cosine; what
        `cv2.drawMatches` takes.

    Raises:
        InvalidArgumentError: the matches of several pairs of images.
    """
    check_matches(matches)
    rows = torch.arange(len(matches)).repeat(2, 1).T
    return (
        to_keypoints(matches.points_a, size),
        to_keypoints(matches.points_b, size),
        to_dmatches(rows, 1 - matches.scores.cpu()),
    )


def to_image_features(
    image_size: tuple[int, int],
    keypoints: Sequence[cv2.KeyPoint],
    descriptors: Array,
    index: int = 0,
) -> cv2.detail.ImageFeatures:
    """Build features for the matchers of `cv2.detail`.

    Args:
        image_size: height and width of the image.
        keypoints: N keypoints.
        descriptors: shape (N, D), float32.
        index: the image's number among those that are stitched.
    """
    # OpenCV 4 crashes when descriptors of an empty ImageFeatures() are set, so start from one that
    # OpenCV has filled.
    features = cv2.detail.computeImageFeatures2(cv2.ORB.create(), np.zeros((32, 32), np.uint8))
    features.img_idx = index
    features.img_size = (image_size[1], image_size[0])
    features.keypoints = tuple(keypoints)
    # OpenCV's annotations omit that a UMat is made from an array.
    array: Any = np.ascontiguousarray(descriptors, np.float32)
    features.descriptors = cv2.UMat(array)
    return features


def _as_pixels(image: Any) -> Array:
    image = image.get() if isinstance(image, cv2.UMat) else image
    pixels: Array = np.asarray(image)  # a matrix would keep two axes however it is indexed
    if not isinstance(image, np.ndarray) or pixels.dtype != np.uint8:
        what = type(image).__name__ if pixels is not image else f"{pixels.dtype} of {pixels.shape}"
        raise InvalidArgumentError(
            f"image must be a uint8 array, grey, BGR or BGRA, got {what}"
            + (": cv2.imread found no such file" if image is None else "")
        )
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4)):
        raise InvalidArgumentError(
            f"image must have the shape (H, W), (H, W, 3) or (H, W, 4), got {pixels.shape}"
        )
    return pixels[..., 0] if pixels.shape[2:] == (1,) else pixels


def _as_mask(mask: Any, pixels: Array) -> Array | None:
    if mask is None:
        return None
    allowed: Array = np.asarray(mask.get() if isinstance(mask, cv2.UMat) else mask)
    allowed = allowed[..., 0] if allowed.shape[2:] == (1,) else allowed
    if allowed.shape != pixels.shape[:2]:
        raise InvalidArgumentError(
            f"mask must have the shape {pixels.shape[:2]}, got {allowed.shape}"
        )
    kept: Array = (allowed != 0).astype(np.uint8)
    return kept
