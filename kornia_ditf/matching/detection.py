"""Keypoints at token centres, inside masks, each position once; OpenCV's detectors by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import no_such

if TYPE_CHECKING:
    import numpy.typing as npt

_OPENCV = ("agast", "akaze", "brisk", "fast", "gftt", "kaze", "mser", "orb", "sift")
_CLASSES = {
    "agast": "AgastFeatureDetector",
    "fast": "FastFeatureDetector",
    "gftt": "GFTTDetector",
}
_LEVELS = 5
_FINEST = 3.0
_LIMITS = {"gftt": "maxCorners", "orb": "nfeatures", "sift": "nfeatures"}


def grid_centres(maps: DescriptorMap, max_keypoints: int | None = None) -> Tensor:
    """Return token centres in pixels, shape (N, 2), thinned evenly to at most `max_keypoints`."""
    rows, columns = maps.grid
    step = 1
    if max_keypoints is not None:
        while -(-rows // step) * -(-columns // step) > max_keypoints:
            step += 1
    centres = maps.centres().view(rows, columns, 2)
    # In the middle of every step, as far as there is one.
    start_y, start_x = min(step // 2, (rows - 1) // 2), min(step // 2, (columns - 1) // 2)
    return centres[start_y::step, start_x::step].reshape(-1, 2)


def is_filled(lafs: Tensor) -> Tensor:
    """Whether frames (..., 2, 3) are filled; Kornia's detectors leave unused slots all zero."""
    return lafs.ne(0).flatten(-2).any(-1)  # kornia.feature.laf_is_filled, which 0.8 has not


def first_at_position(points: Tensor) -> Tensor:
    """Whether each point (N, 2) is the first at its position, shape (N,), bool.

    Detectors report one position once per orientation or scale. Dense descriptors depend on the
    position alone, so the repeats would share one descriptor, which no ratio test survives.

    Example:
        >>> first_at_position(torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
        tensor([ True,  True, False])
    """
    _, position = torch.unique(points, dim=0, return_inverse=True)
    row = torch.arange(len(points), device=points.device)
    first = row.new_full((len(points),), len(points)).scatter_reduce(0, position, row, "amin")
    return first[position] == row


def allowed_at(points: Tensor, mask: Tensor) -> Tensor:
    """Whether points (N, 2) lie on pixels where a mask (H, W) is not 0, shape (N,), bool."""
    size = points.new_tensor([mask.shape[1], mask.shape[0]])
    x, y = torch.minimum(points.round().clamp_min(0), size - 1).long().unbind(-1)
    return (mask != 0)[y.to(mask.device), x.to(mask.device)].to(points.device)


def measures_scale(detector: Any) -> bool:
    """Whether the diameters of a detector's keypoints measure their scale, as SIFT's do."""
    return detector == "sift" or type(detector).__name__ == "SIFT"


def read_at_scales(read: Callable[[int], Tensor], diameters: Tensor, side: int) -> Tensor:
    """Read each keypoint's descriptor from the image at the size that suits its diameter.

    Args:
        read: reads the descriptors of all keypoints, shape (..., N, D), from the image at a longest
            side.
        diameters: in pixels of the image at its full size, shape (..., N).
        side: its longest side there; it serves too where the image is too thin for a smaller one.
    """
    found = read(side)
    sides = sides_for(diameters, side).to(found.device)
    for each in set(sides.flatten().tolist()) - {side}:
        try:
            found = torch.where((sides == each)[..., None], read(each), found)
        except ImageError:  # thinner than a token at that size
            continue
    return found


def sides_for(diameters: Tensor, side: int) -> Tensor:
    """Return the longest side at which to describe an image for each of its keypoints.

    Descriptors of a fixed grid see a fixed part of the image. A keypoint that is twice as large is
    read from a copy of half the size, so that the same object has similar descriptors at another
    size. Keypoints of up to 3 pixels are read at full size, and the smallest of five sizes, each
    smaller by the square root of 2, serves all beyond.

    Args:
        diameters: in pixels of the described image, any shape.
        side: its longest side.

    Example:
        >>> sides_for(torch.tensor([2.0, 6.0, 100.0]), 336)
        tensor([336, 168,  84])
    """
    levels = (2 * (diameters / _FINEST).clamp_min(1).log2()).round().clamp_max(_LEVELS - 1)
    return (side * 2 ** (-levels / 2)).round().long()


def grey_pixels(image: Tensor) -> npt.NDArray[np.uint8]:
    """Convert an image in [0, 1], shape (1, 3, H, W) or (1, 1, H, W), to grey bytes (H, W)."""
    import cv2

    pixels = (image[0].detach().float() * 255).round().clamp(0, 255).byte().cpu().numpy()
    if len(pixels) == 1:
        return np.asarray(pixels[0])
    colours = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY), np.uint8)


class NamedDetector:
    """One of OpenCV's detectors by name; unlike OpenCV's objects it can be copied and pickled.

    Args:
        name: `sift`, `orb`, `gftt` or another detector of the installed OpenCV.
        max_keypoints: maximum number of keypoints, for detectors that accept one.

    Raises:
        InvalidArgumentError: the installed OpenCV has no such detector.
    """

    def __init__(self, name: str, max_keypoints: int | None = None) -> None:
        import cv2

        here = [known for known in _OPENCV if opencv_factory(known) is not None]
        if name not in here:
            kind = f"detector of OpenCV {cv2.__version__}"
            raise InvalidArgumentError(no_such(kind, name, ["grid", *here]))
        limited = max_keypoints is not None and name in _LIMITS
        limit = {_LIMITS[name]: max_keypoints} if limited else {}
        self.name, self.max_keypoints = name, max_keypoints
        self.detector: Any = opencv_factory(name)(**limit)

    def __repr__(self) -> str:
        return repr(self.name)

    def detect(self, image: Any, mask: Any = None) -> Any:
        """Find keypoints, as OpenCV's `detect` does."""
        return self.detector.detect(image, mask)

    def __reduce__(self) -> tuple[type[NamedDetector], tuple[str, int | None]]:
        return NamedDetector, (self.name, self.max_keypoints)


def opencv_factory(name: str) -> Any:
    """Return the function by which the installed OpenCV makes a feature; None if it has none."""
    import cv2

    made = f"{_CLASSES.get(name, name.upper())}_create"
    # OpenCV 5 has AKAZE, BRISK and KAZE in its contrib modules alone.
    return getattr(cv2, made, None) or getattr(getattr(cv2, "xfeatures2d", None), made, None)
