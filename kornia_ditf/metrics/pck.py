"""PCK per point, per image and per category, accumulated over pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.functional import Comparison, shares
from kornia_ditf.utils.checks import check_one_of, check_tensor

Floats = npt.NDArray[np.float64]

_BASES = {
    "box": "the longer side of the object's box in image B",
    "image": "the longer side of image B",
    "canvas": "the side of the padded square",
    "points": "the longer side of the extent of the keypoints in image B",
    "pixels": "one pixel",
}


@dataclass(frozen=True, slots=True)
class CategoryPCK:
    """PCK of one category.

    Args:
        points: how many points were scored.
        images: how many pairs had any.
        per_point: of all points, the share that is correct, at each threshold.
        per_image: the mean over pairs of each pair's share.
    """

    points: int
    images: int
    per_point: tuple[float, ...]
    per_image: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PCKScores:
    """PCK in every way that papers count it; each tuple has one value for each threshold.

    Args:
        alphas: the thresholds.
        points: how many points were scored.
        images: how many pairs had any.
        empty: how many pairs had none; they count nowhere.
        per_point: of all points, the share that is correct.
        per_image: the mean over pairs of each pair's share.
        per_point_of_categories: the mean over categories of their per-point PCK.
        per_image_of_categories: the mean over categories of their per-image PCK.
        categories: each category's own.
    """

    alphas: tuple[float, ...]
    points: int
    images: int
    empty: int
    per_point: tuple[float, ...]
    per_image: tuple[float, ...]
    per_point_of_categories: tuple[float, ...]
    per_image_of_categories: tuple[float, ...]
    categories: Mapping[str, CategoryPCK]


def pck_sums(hits: Tensor) -> Floats:
    """Compute what a pair adds to the sums whose ratios are PCK per point and per image.

    Args:
        hits: which points are correct at each threshold, shape (A, K), bool.

    Returns:
        shape (2, 1 + A): the number of points, and of correct ones at each threshold; the number
        of pairs, 0 for one without points, and the share of its points that is correct.

    Example:
        >>> pck_sums(torch.tensor([[True, True], [True, False]]))
        array([[2. , 2. , 1. ],
               [1. , 1. , 0.5]])
    """
    points, correct = hits.shape[1], hits.sum(1).tolist()
    return np.array([[points, *correct], [points > 0, *shares(hits).tolist()]], np.float64)


class PCK:
    """Percentage of correct keypoints, per point, per image and per category at once.

    Args:
        alphas: the thresholds as parts of the base.
        base: what they are relative to: `box`, `image`, `canvas`, `points` or `pixels`.
        comparison: whether a distance of exactly the threshold is correct.

    Example:
        >>> pck = PCK([0.1, 0.05])
        >>> pck.update(torch.tensor([[True, True], [True, False]]), "cat")
        >>> pck.update(torch.tensor([[True], [False]]), "cat")
        >>> scores = pck.compute()
        >>> scores.per_point, scores.per_image
        ((1.0, 0.3333333333333333), (1.0, 0.25))
    """

    def __init__(
        self, alphas: Sequence[float], base: str = "box", comparison: Comparison = "<="
    ) -> None:
        check_one_of("base", base, _BASES)
        self.alphas, self.base, self.comparison = tuple(alphas), base, comparison
        # Of each category, how many points there are and how many are correct at each threshold;
        # and how many pairs, and the sums of their shares.
        self._sums: dict[str, Floats] = {}
        self._empty = 0

    @property
    def definition(self) -> str:
        """The definition of the scores, in sentences."""
        return (
            f"PCK@a: the share of keypoints found at a distance {self.comparison} a times "
            f"{_BASES[self.base]}. Per point: of all keypoints of all pairs. Per image: the mean "
            "over pairs of each pair's share. Of categories: the mean over categories of either. "
            "Only keypoints that are annotated in both images count."
        )

    def update(self, hits: Tensor, category: str = "all") -> None:
        """Count one pair.

        Args:
            hits: which points are correct at each threshold, shape (A, K), bool.
            category: what the pair counts under.

        Raises:
            InvalidArgumentError: there are not as many rows as thresholds.
        """
        check_tensor(hits, "hits", f"({len(self.alphas)}, K)")
        if not hits.shape[1]:
            self._empty += 1
            return
        self._add(category, pck_sums(hits))

    def _add(self, category: str, sums: Floats) -> None:
        self._sums[category] = self._sums.get(category, np.zeros_like(sums)) + sums

    def merge(self, other: PCK) -> None:
        """Add what another one counted.

        Raises:
            InvalidArgumentError: it counts something else.
        """
        if (self.alphas, self.definition) != (other.alphas, other.definition):
            raise InvalidArgumentError("only equal settings and thresholds can be merged")
        for category, sums in other._sums.items():
            self._add(category, sums)
        self._empty += other._empty

    def compute(self) -> PCKScores:
        """Return the scores of all pairs so far; NaN where there are none."""
        categories = {name: _scores(sums) for name, sums in sorted(self._sums.items())}
        nothing = np.zeros((2, 1 + len(self.alphas)))
        whole = _scores(sum(self._sums.values(), nothing))
        means = [
            sum((np.array([1, *getattr(each, name)]) for each in categories.values()), nothing[0])
            for name in ("per_point", "per_image")
        ]
        return PCKScores(
            alphas=self.alphas,
            points=whole.points,
            images=whole.images,
            empty=self._empty,
            per_point=whole.per_point,
            per_image=whole.per_image,
            per_point_of_categories=_shares(means[0]),
            per_image_of_categories=_shares(means[1]),
            categories=categories,
        )


def _scores(sums: Floats) -> CategoryPCK:
    points, images = sums
    return CategoryPCK(int(points[0]), int(images[0]), _shares(points), _shares(images))


def _shares(sums: Floats) -> tuple[float, ...]:
    count, *correct = sums.tolist()
    return tuple(each / count if count else math.nan for each in correct)
