"""Matches that another program has written: features and matches in hloc's HDF5 files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kornia_ditf.errors import DatasetError, InvalidArgumentError
from kornia_ditf.matchers.base import ImageMatcher, MatcherSpec
from kornia_ditf.types import Matches
from kornia_ditf.utils.cache import sha256
from kornia_ditf.utils.extras import import_extra

_HOW = "hloc's extract_features and match_features write such files"


class StoredMatches(ImageMatcher):
    """Matches from the files of hloc, looked up by the names of the images.

    Names are tried as they are, and without one leading folder after another.

    Args:
        features: the HDF5 file with `keypoints` of each image, shape (N, 2).
        matches: the HDF5 file with `matches0` of each pair, a row of image 1's keypoints or -1
            for each keypoint of image 0, and optionally `matching_scores0`.

    Raises:
        MissingExtraError: h5py is not installed.
        DatasetError: a file is missing or no HDF5.
    """

    resizable = False

    def __init__(self, *, features: str | Path, matches: str | Path) -> None:
        for name, value in (("features", features), ("matches", matches)):
            if not str(value).strip():
                raise InvalidArgumentError(f"{name} must name an HDF5 file, got an empty text")
        self.paths = [Path(each).expanduser() for each in (features, matches)]
        self._features, self._matches = (_open(path) for path in self.paths)

    @property
    def identity(self) -> str:
        return " ".join(map(sha256, self.paths))

    def features(self, image: Tensor, name: str) -> tuple[str, Tensor]:
        parts = Path(name).as_posix().split("/")
        for known in ("/".join(parts[start:]) for start in range(len(parts))):
            group = _group(self._features, known)
            if group is not None:
                points = _numbers(group, "keypoints", self.paths[0])
                if points.ndim != 2 or points.shape[1] < 2:
                    raise DatasetError(
                        self.paths[0], f"keypoints of {known} must be (N, 2), got {points.shape}"
                    )
                return known, torch.from_numpy(points[:, :2]).float()
        raise DatasetError(self.paths[0], f"it has no image {name!r}. {_HOW}")

    def compare(self, features_a: Any, features_b: Any) -> Matches:
        (name_a, points_a), (name_b, points_b) = features_a, features_b
        a, b = (name.replace("/", "-") for name in (name_a, name_b))
        group, reverse = _group(self._matches, f"{a}/{b}"), False
        if group is None:
            group, reverse = _group(self._matches, f"{b}/{a}"), True
        if group is None:
            raise DatasetError(self.paths[1], f"it has no pair {name_a!r}, {name_b!r}. {_HOW}")
        nearest = _numbers(group, "matches0", self.paths[1]).ravel()
        rows = np.flatnonzero(nearest >= 0)
        pairs = torch.from_numpy(np.stack([rows, nearest[rows].astype(np.int64)]))
        scores = torch.ones(len(rows))
        if "matching_scores0" in group:
            found = _numbers(group, "matching_scores0", self.paths[1]).ravel()
            scores = torch.from_numpy(found[: len(nearest)][rows]).float()
        first, second = pairs.flip(0) if reverse else pairs
        for chosen, points in ((first, points_a), (second, points_b)):
            if len(chosen) and int(chosen.max()) >= len(points):
                raise DatasetError(self.paths[1], f"{name_a}, {name_b}: no keypoint {chosen.max()}")
        return Matches(points_a[first], points_b[second], scores)


def _open(path: Path) -> Any:
    h5py = import_extra("h5py", "matches from disk need h5py", "kornia-ditf[hloc]")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = "there is no such file" if not path.exists() else f"it is no HDF5 file ({error})"
        raise DatasetError(path, f"{reason}. {_HOW}") from error


def _group(file: Any, name: str) -> Any:
    try:
        return file.get(name) if name else None
    except (KeyError, OSError, RuntimeError):
        return None


def _numbers(group: Any, name: str, path: Path) -> np.ndarray[Any, Any]:
    try:
        values = np.asarray(group[name][()])
    except (KeyError, OSError, TypeError, AttributeError) as error:
        raise DatasetError(path, f"{group.name} has no {name}. {_HOW}") from error
    if values.dtype.kind not in "fiu":
        raise DatasetError(path, f"{name} of {group.name} must hold numbers, got {values.dtype}")
    return values


def _lacks() -> str:
    return "" if find_spec("h5py") else "h5py: pip install 'kornia-ditf[hloc]'"


SPEC = MatcherSpec(
    name="hloc",
    load=StoredMatches,
    source="Sarlin et al., arXiv 1812.03506; the files features=... and matches=...",
    license="of what wrote them",
    lacks=_lacks,
)
