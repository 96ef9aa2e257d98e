"""Points of many pairs become keypoints and tracks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.sfm.graph import CorrespondenceGraph, ViewedImage, merge_keypoints
from kornia_ditf.types import Matches

IMAGES = [ViewedImage(name, (100, 120)) for name in "abcd"]


def pair(a: Tensor, b: Tensor, scores: Tensor | None = None) -> tuple[Matches, Tensor]:
    scores = torch.ones(len(a)) if scores is None else scores
    return Matches(a, b, scores), torch.ones(len(a), dtype=torch.bool)


def scattered(count: int, seed: int = 0) -> Tensor:
    """Points with ten pixels between any two."""
    cells = torch.randperm(99, generator=torch.Generator().manual_seed(seed))[:count]
    return torch.stack([cells % 11 * 10.0 + 4.6, cells // 11 * 10.0 + 4.6], 1)


def test_planted_tracks_come_back_whole_in_spite_of_noise() -> None:
    truth = [scattered(40, seed) for seed in range(4)]
    generator = torch.Generator().manual_seed(9)
    pairs = []
    for first in range(4):
        for second in range(first + 1, 4):
            a, b = (
                truth[each] + 0.8 * (torch.rand(40, 2, generator=generator) - 0.5)
                for each in (first, second)
            )
            order = torch.randperm(40, generator=generator)
            pairs.append((first, second, *pair(a[order], b[order])))
    graph = merge_keypoints(IMAGES, pairs, cell=10)
    assert graph.track_lengths().tolist() == [4] * 40
    for image, points in zip(graph.images, truth, strict=True):
        assert len(image.keypoints) == 40
        assert torch.cdist(points, image.keypoints).amin(1).max() < 0.5
    # Without merging no point is in two pairs.
    assert merge_keypoints(IMAGES, pairs, cell=0).track_lengths().tolist() == [2] * 240


def test_equal_points_are_one_keypoint_and_all_others_stay() -> None:
    a, b, c = scattered(5, 1), scattered(5, 2), scattered(5, 3) + torch.rand(5, 2)
    graph = merge_keypoints(IMAGES[:3], [(0, 1, *pair(a, b)), (1, 2, *pair(b, c))], cell=0)
    assert [len(each.keypoints) for each in graph.images] == [5, 5, 5]
    for number, (first, second) in enumerate(((a, b), (b, c))):
        matches = graph.matches(number)
        assert torch.equal(matches.points_a, first) and torch.equal(matches.points_b, second)


def test_in_a_pair_each_keypoint_keeps_its_best_partner() -> None:
    a = torch.tensor([[5.0, 5.0], [5.5, 5.5], [25.0, 5.0]])
    b = torch.tensor([[5.0, 5.0], [45.0, 5.0], [45.5, 5.0]])
    matches, kept = pair(a, b, torch.tensor([0.5, 0.9, 0.7]))
    kept[2] = False
    graph = merge_keypoints(IMAGES[:2], [(0, 1, matches, kept)], cell=10)
    (found,) = graph.pairs
    assert found.scores.tolist() == pytest.approx([0.9])
    assert graph.matches(0).points_a.tolist() == [[5.25, 5.25]]
    assert found.inliers.tolist() == [True]


def test_only_inliers_make_tracks() -> None:
    matches, kept = pair(scattered(6), scattered(6, 1))
    kept[:2] = False
    graph = CorrespondenceGraph.of_pair("ab", [(100, 120)] * 2, matches, kept)
    assert graph.track_lengths().tolist() == [2] * 4
    assert repr(graph) == "CorrespondenceGraph(2 images, 1 pairs, 12 keypoints, 6 matches)"


def test_nothing_to_merge_gives_images_without_keypoints() -> None:
    graph = merge_keypoints(IMAGES, [], cell=4)
    assert [len(each.keypoints) for each in graph.images] == [0] * 4
    assert graph.track_lengths().tolist() == []
    empty = pair(torch.zeros(0, 2), torch.zeros(0, 2))
    assert len(merge_keypoints(IMAGES, [(0, 1, *empty)], cell=4).pairs[0].indices) == 0


@pytest.mark.parametrize("cell", [-1.0, float("nan"), [1.0, 2.0]])
def test_a_cell_that_is_none_is_refused(cell: float) -> None:
    with pytest.raises(InvalidArgumentError, match="cell must be 0 or more"):
        merge_keypoints(IMAGES, [], cell=cell)


@pytest.mark.parametrize("numbers", [(0, 4), (-1, 2), (1, 1)])
def test_a_pair_of_no_two_images_is_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgumentError, match="two of 4 images"):
        merge_keypoints(IMAGES, [(*numbers, *pair(scattered(3), scattered(3)))], cell=1)
