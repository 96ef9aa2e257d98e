"""The interface of image matchers, sparse or dense: two images to `Matches`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError, MatcherError
from kornia_ditf.matching.checks import check_matches
from kornia_ditf.matching.verification import Geometry, verify
from kornia_ditf.preprocess import ImageLike, as_image, fit_image
from kornia_ditf.types import Frame, Matches
from kornia_ditf.utils.checks import check_integer, check_number, check_one_of, check_spec

_MARGIN = 32
"""So many pixels outside the image a point may lie: some matchers pad images, and match there."""


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """What a matcher keeps of one image.

    Args:
        frame: how the image's pixels map onto those that the matcher saw.
        features: the matcher's own values; the fitted image where it extracts none.
    """

    frame: Frame
    features: Any


class ImageMatcher(ABC):
    """Finds correspondences between two images.

    A subclass implements `compare`, and `features` where an image can be read by itself. Callers
    use `match`, and `extract` for an image that is matched with several others.
    """

    long_side: int | None = None
    """Longest side in pixels to which images are fitted; None keeps their size."""

    multiple: int = 1
    """What both sides of a fitted image are multiples of."""

    verification: Geometry | None = None
    """`homography` or `fundamental` keeps the matches that agree with one, by MAGSAC++."""

    threshold: float = 3.0
    """Largest error of such a match, in pixels."""

    resizable: bool = True
    """Whether an image may be resized first; not where points of the original are on file."""

    @property
    def identity(self) -> str:
        """Describe what affects the matches beside name and options, such as files."""
        return ""

    def features(self, image: Tensor, name: str) -> Any:
        """Read one image: what `compare` takes of it.

        Args:
            image: RGB in [0, 1], shape (1, 3, H, W).
            name: path of the image as the caller gave it; empty for a tensor.
        """
        return image

    @abstractmethod
    def compare(self, features_a: Any, features_b: Any) -> Matches:
        """Match what `features` gave of two images, in the pixels of the images it was given."""

    @torch.no_grad()
    def extract(self, image: ImageLike, name: str | None = None) -> Extracted:
        """Read one image, to match it with several others.

        Args:
            image: one image, as in `as_image`.
            name: of the image, for matchers that look it up; None takes its path.

        Raises:
            ImageError: a file cannot be read, or the image is too small.
            InvalidArgumentError: a batch of images.
        """
        pixels = as_image(image)
        if len(pixels) != 1:
            raise InvalidArgumentError(f"a matcher takes one image, got a batch of {len(pixels)}")
        if name is None:
            name = fspath(image) if isinstance(image, str | PathLike) else ""
        fitted, frame = fit_image(pixels.float(), self.long_side, self.multiple)
        return Extracted(frame, self.features(fitted, name))

    @torch.no_grad()
    def match(self, image_a: ImageLike | Extracted, image_b: ImageLike | Extracted) -> Matches:
        """Match two images.

        Args:
            image_a: one image, as in `as_image`, or what `extract` gave of it.
            image_b: the other; sizes may differ.

        Returns:
            points in the pixels of both images, and a score for each match, higher is better.

        Raises:
            MatcherError: the matcher gives no matches, or points that are not finite or far
                outside an image.
            ImageError: a file cannot be read, or an image is too small.
        """
        a, b = (
            each if isinstance(each, Extracted) else self.extract(each)
            for each in (image_a, image_b)
        )
        name = type(self).__name__
        found = _checked(self.compare(a.features, b.features), name)
        points_a, points_b, scores = (
            each.detach().cpu() for each in (found.points_a, found.points_b, found.scores)
        )
        matches = Matches(
            _inside(points_a, a.frame, name), _inside(points_b, b.frame, name), scores.float()
        )
        if self.verification is None:
            return matches
        return verify(matches, self.verification, threshold=self.threshold).inlier_matches


def _checked(found: object, name: str) -> Matches:
    if not isinstance(found, Matches):
        raise MatcherError(f"{name}.compare must return Matches, got a {type(found).__name__}")
    if any(each.is_complex() for each in (found.points_a, found.points_b, found.scores)):
        raise MatcherError(f"{name} returned complex numbers")
    try:
        check_matches(found)
    except InvalidArgumentError as error:
        raise MatcherError(f"{name} returned no matches: {error}") from error
    if bool(torch.isnan(found.scores).any()):
        raise MatcherError(f"{name} returned scores that are NaN")
    return found


def _inside(points: Tensor, frame: Frame, name: str) -> Tensor:
    """Return points of the fitted image in the image's own pixels, if they lie in it."""
    height, width = frame.model_size
    beyond = torch.maximum(-points, points - points.new_tensor([width - 1, height - 1]))
    if bool((beyond > _MARGIN).any()):
        x, y = points[int(beyond.amax(1).argmax())].tolist()
        raise MatcherError(
            f"{name} returned ({x:g}, {y:g}), outside the image of {width} x {height} pixels"
        )
    return frame.to_image(points)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatcherSpec:
    """Description of a matcher, available before it is loaded.

    Args:
        name: what the user types.
        load: makes the `ImageMatcher`; called with the options that the user gave as keywords
            (`device` by convention). It must be importable: studies call it in a process apart.
        source: the method's publication or home.
        license: licence of code and weights.
        lacks: returns what is missing here for it to be loaded, with the command that brings it;
            an empty text where nothing is known to be missing. It must not load a model.
    """

    name: str
    load: Callable[..., ImageMatcher]
    source: str
    license: str
    lacks: Callable[[], str] = str  # an empty text

    def __post_init__(self) -> None:
        check_spec(self, ("name", "source", "license"))


def set_options(matcher: ImageMatcher, options: dict[str, Any]) -> ImageMatcher:
    """Set the options that every matcher has: `long_side`, `verification` and `threshold`."""
    check_shared(options)
    for name, value in options.items():
        setattr(matcher, name, value)
    return matcher


def check_shared(options: Mapping[str, Any]) -> None:
    """Check the options that every matcher has, as `set_options` does."""
    side, geometry = options.get("long_side"), options.get("verification")
    if side is not None:
        check_integer("long_side", side, 8)
    if geometry is not None:
        check_one_of("verification", geometry, ("homography", "fundamental"))
    check_number("threshold", float(options.get("threshold", 1)), "(0, inf]")
