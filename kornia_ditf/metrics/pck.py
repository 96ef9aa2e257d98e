"""PCK per point, per image and per category, accumulated over pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.metrics.functional import Comparison
from kornia_ditf.utils.checks import check_one_of

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
        self._counts: dict[str, tuple[int, int]] = {}
        self._sums: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
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
        if hits.ndim != 2 or len(hits) != len(self.alphas):
            raise InvalidArgumentError(
                f"hits must have the shape ({len(self.alphas)}, K), got {tuple(hits.shape)}"
            )
        if not hits.shape[1]:
            self._empty += 1
            return
        correct = hits.sum(1).cpu().double().numpy()
        self._add(category, (hits.shape[1], 1), (correct, correct / hits.shape[1]))

    def _add(
        self,
        category: str,
        counts: tuple[int, int],
        sums: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    ) -> None:
        points, images = self._counts.get(category, (0, 0))
        self._counts[category] = (points + counts[0], images + counts[1])
        before = self._sums.get(category, (np.zeros(len(self.alphas)),) * 2)
        self._sums[category] = (before[0] + sums[0], before[1] + sums[1])

    def merge(self, other: PCK) -> None:
        """Add what another one counted.

        Raises:
            InvalidArgumentError: it counts something else.
        """
        if (self.alphas, self.definition) != (other.alphas, other.definition):
            raise InvalidArgumentError("only what counts the same at the same thresholds merges")
        for category, counts in other._counts.items():
            self._add(category, counts, other._sums[category])
        self._empty += other._empty

    def compute(self) -> PCKScores:
        """Return the scores of all pairs so far; NaN where there are none."""
        categories = {
            name: CategoryPCK(
                *self._counts[name], _shares(correct, points), _shares(per_image, images)
            )
            for name, (correct, per_image) in sorted(self._sums.items())
            for points, images in [self._counts[name]]
        }
        points, images = (sum(each[i] for each in self._counts.values()) for i in (0, 1))
        zero = np.zeros(len(self.alphas))
        return PCKScores(
            alphas=self.alphas,
            points=points,
            images=images,
            empty=self._empty,
            per_point=_shares(sum((each[0] for each in self._sums.values()), zero), points),
            per_image=_shares(sum((each[1] for each in self._sums.values()), zero), images),
            per_point_of_categories=_means([each.per_point for each in categories.values()], zero),
            per_image_of_categories=_means([each.per_image for each in categories.values()], zero),
            categories=categories,
        )


def _shares(sums: npt.NDArray[np.float64], count: int) -> tuple[float, ...]:
    return tuple(float(each) / count if count else math.nan for each in sums)


def _means(rows: Sequence[tuple[float, ...]], zero: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return _shares(sum((np.array(row) for row in rows), zero), len(rows))
