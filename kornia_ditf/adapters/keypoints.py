"""Where keypoints come from: the token grid, a mask over it, OpenCV's detectors by name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import DescriptorMap

_OPENCV = ("agast", "akaze", "brisk", "fast", "gftt", "kaze", "mser", "orb", "sift")
_LIMITS = {"gftt": "maxCorners", "orb": "nfeatures", "sift": "nfeatures"}


def grid_centres(maps: DescriptorMap, max_keypoints: int | None = None) -> Tensor:
    """Give the tokens' centres in pixels, shape (N, 2), thinned evenly to at most so many."""
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
    """Tell which frames (..., 2, 3) are more than zeros, the empty slots of Kornia's detectors."""
    return lafs.ne(0).flatten(-2).any(-1)  # kornia.feature.laf_is_filled, which 0.8 has not


def allowed_at(points: Tensor, mask: Tensor) -> Tensor:
    """Tell which points (N, 2) lie on pixels where a mask (H, W) is not 0, shape (N,), bool."""
    size = points.new_tensor([mask.shape[1], mask.shape[0]])
    x, y = torch.minimum(points.round().clamp_min(0), size - 1).long().unbind(-1)
    return (mask != 0)[y.to(mask.device), x.to(mask.device)].to(points.device)


class NamedDetector:
    """One of OpenCV's detectors by its name, which can therefore be copied and pickled.

    Args:
        name: `sift`, `orb`, `gftt` ..., whatever this OpenCV has.
        max_keypoints: how many it finds at most, if it can be told.

    Raises:
        InvalidArgumentError: this OpenCV has none of that name.
    """

    def __init__(self, name: str, max_keypoints: int | None = None) -> None:
        import cv2

        here = [known for known in _OPENCV if hasattr(cv2, f"{_class_name(known)}_create")]
        if name not in here:
            near = get_close_matches(name.lower(), here, n=1)
            advice = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidArgumentError(
                f"OpenCV {cv2.__version__} has no detector {name!r}; {advice}"
                f"it has grid, {', '.join(here)}"
            )
        limited = max_keypoints is not None and name in _LIMITS
        limit = {_LIMITS[name]: max_keypoints} if limited else {}
        self.name, self.max_keypoints = name, max_keypoints
        self.detector: Any = getattr(cv2, f"{_class_name(name)}_create")(**limit)

    def detect(self, image: Any, mask: Any = None) -> Any:
        """Find keypoints, as OpenCV's `detect` does."""
        return self.detector.detect(image, mask)

    def __reduce__(self) -> tuple[type[NamedDetector], tuple[str, int | None]]:
        return NamedDetector, (self.name, self.max_keypoints)


def _class_name(name: str) -> str:
    special = {
        "agast": "AgastFeatureDetector",
        "fast": "FastFeatureDetector",
        "gftt": "GFTTDetector",
    }
    return special.get(name, name.upper())
