"""Matching the images of a folder pair by pair, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from kornia_ditf.errors import DamagedFileError, DiTFError, ImageError, InvalidArgumentError
from kornia_ditf.matchers.base import Extracted, ImageMatcher
from kornia_ditf.matching.verification import verify
from kornia_ditf.registry.matchers import load_matcher
from kornia_ditf.sfm.graph import CorrespondenceGraph, ViewedImage, merge_keypoints
from kornia_ditf.sfm.pairs import choose_pairs, list_images, pool
from kornia_ditf.types import Matches
from kornia_ditf.utils.cache import sha256, write_to_cache
from kornia_ditf.utils.files import read_sealed, save_sealed

_FORMAT = 1
_LIMIT_BYTES = 512 * 2**20
_BLOCK = 8
"""Pairs are taken in squares of so many images, whose features stay in memory."""


@dataclass(frozen=True, slots=True)
class FolderMatches:
    """Result of matching the images of a folder.

    Args:
        graph: the images with their keypoints, and the pairs with enough inliers.
        matched: how many pairs were matched now.
        resumed: how many were found in the cache.
        weak: how many had too few inliers, or too small a share.
        failed: images that could not be used, by name.
    """

    graph: CorrespondenceGraph
    matched: int = 0
    resumed: int = 0
    weak: int = 0
    failed: Mapping[str, DiTFError] = field(default_factory=dict)


def match_folder(
    folder: str | Path,
    matcher: ImageMatcher | str = "nano",
    pairs: str | Path = "all",
    *,
    count: int = 10,
    threshold: float = 4.0,
    min_inliers: int = 15,
    min_share: float = 0.25,
    cell: float | None = None,
    cache: str | Path | None = None,
    settings: str = "",
    progress: Callable[[Sequence[tuple[int, int]]], Iterable[tuple[int, int]]] = iter,
    on_error: Callable[[DiTFError], None] | None = None,
) -> FolderMatches:
    """Match the images of a folder, and merge their points into one list of keypoints per image.

    Args:
        folder: of the images; those in folders inside it too.
        matcher: an image matcher, or the name of one for `load_matcher`.
        pairs: `all`; `sequential`, each image with the next `count`; `retrieval`, each with the
            `count` most alike by pooled descriptors (nano's for a matcher without any); or a file
            with two names in each line.
        count: of images, for `sequential` and `retrieval`.
        threshold: largest distance to the epipolar line of an inlier, in pixels.
        min_inliers: pairs with fewer are left out.
        min_share: as are pairs where fewer of the matches are inliers, in [0, 1]. Of many matches
            some agree by chance: up to a tenth between photographs of different scenes.
        cell: side in pixels of the cells whose points become one keypoint, see `merge_keypoints`.
            None takes a quarter of a token where tokens are matched, and 1 elsewhere.
        cache: a folder for finished pairs: the same call then goes on where another ended. None
            keeps them in memory alone.
        settings: what decides the matches besides the images and the matcher's `identity`, such as
            its name and options; pairs of other settings are matched again.
        progress: wraps the list of pairs as it is gone through.
        on_error: called for an image that cannot be used; its pairs are left out. None raises.

    Returns:
        the graph, and the outcome for the pairs and images.

    Raises:
        InvalidArgumentError: a wrong value, or fewer than two images.
        ImageError: an image cannot be used, and there is no `on_error`.
        OutputError: the cache cannot be written.

    Example:
        >>> found = match_folder("examples/data", "sift", "sequential", count=1)
        >>> len(found.graph.images), min(len(pair.indices) for pair in found.graph.pairs) > 100
        (5, True)
    """
    folder = Path(folder)
    names = list_images(folder)
    if isinstance(matcher, str):
        settings = settings or matcher
        matcher = load_matcher(matcher)
    reader = _Reader(folder, names, matcher, on_error)
    chosen = choose_pairs(names, pairs, count, reader.pooled)
    results: dict[tuple[int, int], _PairResult] = {}
    resumed = 0
    for pair in progress(sorted(chosen, key=lambda pair: (*(n // _BLOCK for n in pair), pair))):
        path, found = None, None
        if cache is not None:
            digests = [reader.digest(number) for number in pair]
            key = [_FORMAT, digests, settings, matcher.identity, threshold]
            digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:40]
            path = Path(cache) / f"{digest}.safetensors"
            found = _read(path)
            resumed += found is not None
        if found is None:
            found = reader.match(*pair, threshold)
            if found is not None and path is not None:
                found.write(path)
        if found is not None:
            results[pair] = found
    good = {pair: results[pair] for pair in chosen if pair in results}
    good = {pair: each for pair, each in good.items() if each.agrees(min_inliers, min_share)}
    weak = len(results) - len(good)
    graph = _merge(names, results, good, cell)
    return FolderMatches(graph, len(results) - resumed, resumed, weak, reader.failed)


@dataclass(frozen=True, slots=True, eq=False)
class _PairResult:
    """Two images' matches, and what their file says of the images."""

    matches: Matches
    inliers: Tensor
    sizes: list[list[int]]
    cells: list[float]

    def agrees(self, least: int, share: float) -> bool:
        count = int(self.inliers.sum())
        return count >= least and count >= share * len(self.matches)

    def write(self, path: Path) -> None:
        names = ("points_a", "points_b", "scores")
        tensors = {name: getattr(self.matches, name).contiguous() for name in names}
        about = {"sizes": self.sizes, "cells": self.cells}
        with write_to_cache(path) as temporary:
            save_sealed(temporary, {**tensors, "inliers": self.inliers}, about)


def _read(path: Path) -> _PairResult | None:
    """Read a finished pair; None where there is none, or its file is damaged."""
    if not path.exists():
        return None
    try:
        tensors, about = read_sealed(path)
        matches = Matches(tensors["points_a"], tensors["points_b"], tensors["scores"])
        return _PairResult(matches, tensors["inliers"], about["sizes"], about["cells"])
    except (DamagedFileError, KeyError):
        return None


class _Reader:
    """Reads images of a folder, and keeps the latest features in memory up to a limit."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        matcher: ImageMatcher,
        on_error: Callable[[DiTFError], None] | None,
    ) -> None:
        self.folder, self.names, self.matcher, self.on_error = folder, names, matcher, on_error
        self.failed: dict[str, DiTFError] = {}
        self.digest = lru_cache(None)(self._digest)
        self._kept: OrderedDict[int, Extracted] = OrderedDict()
        self._pooling: ImageMatcher | None = None

    def _digest(self, number: int) -> str:
        try:
            return sha256(self.folder / self.names[number])
        except OSError:  # its turn comes, and the error with it
            return ""

    def match(self, first: int, second: int, threshold: float) -> _PairResult | None:
        """Match two images; None where one cannot be used."""
        a, b = self._extract(first), self._extract(second)
        if a is None or b is None:
            return None
        matches = self.matcher.match(a, b)
        inliers = verify(matches, "fundamental", threshold=threshold).inliers
        sizes = [list(each.frame.image_size) for each in (a, b)]
        return _PairResult(matches, inliers, sizes, [_cell_of(each) for each in (a, b)])

    def pooled(self, number: int) -> Tensor | None:
        extracted = self._extract(number)
        if extracted is None:
            return None
        found = pool(extracted.features)
        if found is None:
            self._pooling = self._pooling or load_matcher("nano")
            found = pool(self._pooling.extract(self.folder / self.names[number]).features)
        return found

    def _extract(self, number: int) -> Extracted | None:
        name = self.names[number]
        if name in self.failed:
            return None
        if number not in self._kept:
            try:
                self._kept[number] = self.matcher.extract(self.folder / name)
            except (ImageError, InvalidArgumentError) as error:
                if self.on_error is None:
                    raise
                problem = error if name in str(error) else ImageError(f"cannot use {name}: {error}")
                self.failed[name] = problem
                self.on_error(problem)
                return None
            while len(self._kept) > 2 and _bytes(list(self._kept.values())) > _LIMIT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]


def _cell_of(extracted: Extracted) -> float:
    described = extracted.features
    if not hasattr(described, "grid"):
        return 1.0
    (height, width), (rows, columns) = extracted.frame.image_size, described.grid
    return float(max(height / rows, width / columns)) / 4


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if is_dataclass(value):
        return sum(_bytes(getattr(value, each.name)) for each in fields(value))
    if isinstance(value, Mapping):
        return _bytes(list(value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return int(getattr(value, "nbytes", 0))


def _merge(
    names: Sequence[str],
    results: Mapping[tuple[int, int], _PairResult],
    good: Mapping[tuple[int, int], _PairResult],
    cell: float | None,
) -> CorrespondenceGraph:
    known: dict[int, tuple[list[int], float]] = {}
    for pair, found in results.items():
        known.update(zip(pair, zip(found.sizes, found.cells, strict=True), strict=True))
    images: list[ViewedImage] = []
    sides, place = [], {}
    for number, ((height, width), own) in sorted(known.items()):
        place[number] = len(images)
        images.append(ViewedImage(names[number], (height, width)))
        sides.append(own if cell is None else cell)
    pairs = [(place[a], place[b], f.matches, f.inliers) for (a, b), f in good.items()]
    return merge_keypoints(images, pairs, cell=sides)
