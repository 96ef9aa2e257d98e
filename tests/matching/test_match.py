"""Tokens of pairs of maps are matched, one pair or many; what no comparison takes is refused."""

from __future__ import annotations

import independent
import pytest
import torch
from random_maps import Operations, assert_same, random, random_map, random_pixels
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching import match, match_points, mutual_nearest
from kornia_ditf.types import DescriptorMap, Frame


def test_a_shifted_map_matches_shifted() -> None:
    wide = random_map((32, 96), (4, 12))
    left = DescriptorMap(wide.data[..., :8], Frame((32, 64), (32, 64)))
    right = DescriptorMap(wide.data[..., 4:], Frame((32, 64), (32, 64)))
    matches = match(left, right, min_score=0.99)
    assert len(matches) == 16
    assert torch.equal(matches.points_a - matches.points_b, torch.tensor([32.0, 0]).expand(16, 2))


def test_matches_are_token_centres_best_first() -> None:
    a, b = random_map((37, 53), (5, 7)), random_map((101, 20), (6, 3), seed=1)
    matches = match(a, b)
    pairs = independent.mutual_nearest(a.tokens[0], b.tokens[0])
    centres = {
        (*a.centres()[i].tolist(), *b.centres()[j].tolist()): torch.cosine_similarity(
            a.tokens[0, i], b.tokens[0, j], dim=0
        )
        for i, j in pairs
    }
    found = torch.cat([matches.points_a, matches.points_b], 1).tolist()
    assert {tuple(row) for row in found} == set(centres)
    torch.testing.assert_close(matches.scores, torch.stack([centres[tuple(row)] for row in found]))
    assert torch.equal(matches.scores, matches.scores.sort(descending=True).values)


def test_weaker_matches_are_left_out_on_request() -> None:
    a, b = random_map(), random_map(seed=1)
    every = match(a, b)
    threshold = float(every.scores[3])
    assert torch.equal(match(a, b, min_score=threshold).scores, every.scores[:4])
    assert len(match(a, b, min_score=1.0)) == 0
    assert len(match(a, b, min_score=-1.0)) == len(every)


@pytest.mark.parametrize("options", [{}, {"ratio": 0.97}, {"ratio": 0.97, "radius": 12.0}])
def test_pairs_of_batches_and_lists_are_matched_each_by_itself(options: dict[str, float]) -> None:
    a, b = random_map(batch=5), random_map((29, 31), (4, 6), batch=5, seed=1)
    alone = [match(a[i], b[i], **options) for i in range(5)]
    others = [*b][:3] + [random_map((41, 30), (6, 5), seed=7)] * 2
    for together in (match(a, b, **options), match(list(a), list(b), **options)):
        assert isinstance(together, list)
        for one, other in zip(together, alone, strict=True):
            assert_same(one, other)
    for one, i in zip(match(list(a), others, **options), range(5), strict=True):
        assert_same(one, match(a[i], others[i], **options))


def test_points_of_a_result_may_be_changed_in_place() -> None:
    a, b = random_map(), random_map(seed=1)
    expected = match(a, b)
    changed = match(a, b)
    changed.points_a.zero_(), changed.points_b.zero_()
    assert_same(match(a, b), expected)


def test_one_image_is_matched_with_each_of_many() -> None:
    query, many = random_map(), [random_map(seed=seed) for seed in range(1, 5)]
    for one, other in zip(match(query, many), many, strict=True):
        assert_same(one, match(query, other))
    for one, other in zip(match(many, query), many, strict=True):
        assert_same(one, match(other, query))
    assert match(query, []) == [] == match([], [])
    assert [len(one) for one in match([query], [query])] == [35]


def test_masks_of_many_pairs_are_one_for_all_or_one_each() -> None:
    a, b = random_map(batch=2), random_map(batch=2, seed=1)
    mask = torch.zeros(37, 53, dtype=torch.bool)
    mask[:20] = True
    for masks in (mask, [mask, None]):
        second = mask if masks is mask else None
        one, two = match(list(a), list(b), mask_a=masks)
        assert_same(one, match(a[0], b[0], mask_a=mask))
        assert_same(two, match(a[1], b[1], mask_a=second))


def test_the_time_of_a_list_grows_with_its_length() -> None:
    a, b = random_map(), random_map(seed=1)
    counts = []
    for pairs in (100, 200, 400):
        with Operations() as operations:
            match([a] * pairs, [b] * pairs)
        counts.append(operations.count)
    assert counts[2] - counts[1] <= 2.2 * (counts[1] - counts[0])


def test_small_pairs_of_a_list_share_their_operations() -> None:
    a, b = (random_map((80, 80), (10, 10), width=128, seed=seed) for seed in (0, 1))
    counts = []
    for pairs in (1, 7):
        with Operations() as operations:
            match([a] * pairs, [b] * pairs)
        counts.append(operations.count)
    assert counts[1] < 3 * counts[0]


def broken(value: float) -> Tensor:
    data = random(1, 16, 5, 7)
    data[0, 3, 2, 1] = value
    return data


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_descriptors_that_are_not_finite_are_refused(value: float, side: int) -> None:
    maps = [random_map(), random_map()]
    maps[side] = DescriptorMap(broken(value), maps[0].frame)
    with pytest.raises(InvalidArgumentError, match=f"descriptors_{'ab'[side]} must be finite"):
        match(*maps)
    with pytest.raises(InvalidArgumentError, match=f"map_{'ab'[side]} must be finite"):
        match_points(maps[0], torch.zeros(1, 2), maps[1])


def test_descriptors_beyond_float32_are_refused() -> None:
    large = DescriptorMap(1e200 * random(1, 16, 5, 7).double(), Frame((9, 9), (9, 9)))
    for call in (match, lambda a, b: match_points(a, torch.zeros(1, 2), b)):
        with pytest.raises(InvalidArgumentError, match="finite"):
            call(large, large)


def test_maps_of_different_widths_are_refused_naming_both() -> None:
    a, b = random_map(width=16), random_map(width=24)
    for call in (match, lambda a, b: match_points(a, torch.zeros(1, 2), b)):
        with pytest.raises(InvalidArgumentError, match="D = 16 and 24"):
            call(a, b)


def test_batches_of_different_lengths_are_refused() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"map_b\[1\] holds 3 images, .* map_b\[1\]\[0\]"
    ):
        match([random_map()] * 2, [random_map(), random_map(batch=3)])
    with pytest.raises(InvalidArgumentError, match="the same number of images, .* got 2 and 3"):
        match(random_map(batch=2), random_map(batch=3))
    with pytest.raises(InvalidArgumentError, match="mask_a must hold 2 masks, one per pair, got 1"):
        match(random_map(), random_map(batch=2), mask_a=[None])
    with pytest.raises(InvalidArgumentError, match="map_a must hold DescriptorMaps, got Tensor at"):
        match([torch.ones(1, 2, 3, 4)], random_map())  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError, match="the same number of images, got 2 and 3"):
        match_points(random_map(batch=2), torch.zeros(2, 1, 2), random_map(batch=3))


def test_an_array_is_refused_where_a_tensor_is_needed() -> None:
    with pytest.raises(InvalidArgumentError, match="descriptors_a must be a tensor, got ndarray"):
        mutual_nearest(torch.ones(3, 4).numpy(), torch.ones(3, 4))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="points must be a tensor, got list"):
        match_points(random_map(), [[1, 2]], random_map())  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [-1.5, 1.01, torch.nan])
def test_a_minimal_score_beyond_a_cosine_is_refused(score: float) -> None:
    with pytest.raises(InvalidArgumentError, match=r"min_score must lie in \[-1, 1\]"):
        match(random_map(), random_map(), min_score=score)


@pytest.mark.gpu
def test_an_accelerator_finds_the_same() -> None:
    a, b = random_map(), random_map((29, 31), (4, 3), seed=1)
    points = random_pixels(a, 5)[0]
    on_a, on_b = (DescriptorMap(m.data.cuda(), m.frame) for m in (a, b))
    here, there = match(a, b), match(on_a, on_b)
    assert torch.equal(there.points_b.cpu(), here.points_b)
    torch.testing.assert_close(there.scores.cpu(), here.scores, rtol=0, atol=1e-6)
    here, there = match_points(a, points, b), match_points(on_a, points, on_b)
    assert torch.equal(there.points_b.cpu(), here.points_b)
    torch.testing.assert_close(there.scores.cpu(), here.scores, rtol=0, atol=5e-6)
