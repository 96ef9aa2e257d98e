"""Which images of a folder are matched with which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import check_integer, did_you_mean
from kornia_ditf.utils.sources import IMAGE_SUFFIXES, names_below

KINDS = ("all", "sequential", "retrieval")


def list_images(folder: Path) -> list[str]:
    """List the images in a folder and the folders in it, by name; at least two, hidden ones not."""
    if not folder.is_dir():
        raise InvalidArgumentError(f"there is no folder {folder}")
    names = names_below(folder)
    if len(names) < 2:
        raise InvalidArgumentError(
            f"{folder} must hold at least two images to match, got {len(names)} "
            f"(files that end in {', '.join(IMAGE_SUFFIXES)})"
        )
    return names


def choose_pairs(
    names: Sequence[str], pairs: str | Path, count: int, pooled: Callable[[int], Tensor | None]
) -> list[tuple[int, int]]:
    """Choose pairs of images.

    Args:
        names: of the images, in order.
        pairs: as `match_folder` takes them.
        count: at least 1.
        pooled: returns the pooled descriptor (D,) of an image by its number, for `retrieval`; None
            where it cannot be read.

    Example:
        >>> choose_pairs(["a", "b", "c"], "sequential", 1, lambda number: None)
        [(0, 1), (1, 2)]
    """
    check_integer("count", count, minimum=1)
    everything = list(combinations(range(len(names)), 2))
    if pairs == "all":
        return everything
    if pairs == "sequential":
        return [(a, b) for a, b in everything if b - a <= count]
    if pairs == "retrieval":
        return _most_alike([pooled(number) for number in range(len(names))], count)
    return _read_pairs(Path(pairs), names)


def pool(features: Any) -> Tensor | None:
    """Pool what a matcher keeps of an image, if it is descriptors: the mean of the unit vectors."""
    if isinstance(features, DescriptorMap):
        vectors = features.tokens[0]
    elif isinstance(features, tuple) and len(features) == 2 and features[1].ndim == 2:
        vectors = features[1]  # of keypoints
    else:
        return None
    return F.normalize(vectors.float(), dim=1).mean(0).cpu()


def _most_alike(pooled: Sequence[Tensor | None], count: int) -> list[tuple[int, int]]:
    numbers = [number for number, each in enumerate(pooled) if each is not None]
    vectors = torch.stack([each for each in pooled if each is not None]) if numbers else None
    if vectors is None or len(numbers) < 2:
        return []
    # What all images have in common tells none from another.
    units = F.normalize(vectors - vectors.mean(0), dim=1)
    alike = (units @ units.T).fill_diagonal_(-torch.inf)
    nearest = alike.argsort(dim=1, descending=True, stable=True)[:, : min(count, len(numbers) - 1)]
    chosen = {
        (min(a, numbers[b]), max(a, numbers[b]))
        for a, row in zip(numbers, nearest.tolist(), strict=True)
        for b in row
    }
    return sorted(chosen)


def _read_pairs(path: Path, names: Sequence[str]) -> list[tuple[int, int]]:
    if not path.is_file():
        raise InvalidArgumentError(
            f"pairs must be {', '.join(KINDS)} or a file with two names in each line, "
            f"got {str(path)!r}{did_you_mean(str(path), KINDS)}"
        )
    numbers = {name: number for number, name in enumerate(names)}
    chosen = set()
    for count, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        words = line.split("\t") if "\t" in line else line.split()
        if not words or line.startswith("#"):
            continue
        wrong = [word for word in words if word not in numbers]
        if len(words) != 2 or wrong or words[0] == words[1]:
            what = f"there is no image {wrong[0]!r}" if wrong else "it must name two images"
            raise InvalidArgumentError(
                f"line {count} of {path}: {what}, got {line!r}; separate names with spaces in "
                "them by a tab"
            )
        chosen.add(tuple(sorted(numbers[word] for word in words)))
    return sorted((a, b) for a, b in chosen)
