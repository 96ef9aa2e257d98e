from __future__ import annotations

from typing import Any

import independent
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching import (
    match,
    match_points,
    mutual_nearest,
    nearest,
    similarity,
    similarity_maps,
)
from kornia_ditf.matching.similarity import cosine_planes
from kornia_ditf.types import DescriptorMap, Frame, Matches

seeds = st.integers(0, 1000)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_map(
    size: tuple[int, int] = (37, 53),
    grid: tuple[int, int] = (5, 7),
    *,
    batch: int = 1,
    width: int = 16,
    seed: int = 0,
) -> DescriptorMap:
    return DescriptorMap(random(batch, width, *grid, seed=seed), Frame(size, (32, 32)))


def random_pixels(described: DescriptorMap, count: int, seed: int = 0) -> Tensor:
    height, width = described.frame.image_size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, width, (len(described), count), generator=generator)
    y = torch.randint(0, height, (len(described), count), generator=generator)
    return torch.stack([x, y], -1).float()


def tied(count: int, seed: int) -> Tensor:
    """Vectors with many duplicates and ties, some zero; every product of them is exact."""
    # Four entries of +-1 among eight: of length two, so every cosine is a multiple of 1/4.
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 8, generator=generator).argsort(1) < 4
    signs = torch.randint(0, 2, (count, 8), generator=generator) * 2 - 1
    lengths = torch.tensor([0.0, 1.0, 1.0, 4.0])[
        torch.randint(0, 4, (count, 1), generator=generator)
    ]
    return places * signs * lengths


class LargestTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor has that anything makes."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor):
                # A view is as large as what is held for it.
                self.elements = max(self.elements, value.untyped_storage().nbytes() // 4)
        return out


class Operations(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


# Mutual nearest neighbours


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 14), m=st.integers(0, 14), seed=seeds, exact=st.booleans())
def test_pairs_equal_the_plain_definition_with_ties_duplicates_and_zeros(
    n: int, m: int, seed: int, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nearest.STRIP, "cpu", 3 * m)
    if exact:
        a, b = tied(n, seed), tied(m, seed + 5000)
    else:
        a, b = random(n, 24, seed=seed), random(m, 24, seed=seed + 5000)
    indices, scores = mutual_nearest(a, b)
    independent.check_mutual(a, b, indices)
    assert indices.dtype == torch.int64 and indices.shape[1] == 2
    expected = torch.cosine_similarity(a[indices[:, 0]], b[indices[:, 1]])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(1100, 2100), (512, 1024), (513, 1025), (1, 1500), (700, 1)])
def test_strips_that_do_not_divide_the_rows_change_nothing(
    n: int, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nearest.STRIP, "cpu", 1 << 18)
    # Products of two such blocks add up exactly too, and tie less often.
    a = torch.cat([tied(n, 1), tied(n, 2), tied(n, 3), tied(n, 4)], 1).sign()
    b = torch.cat([tied(m, 5), tied(m, 6), tied(m, 7), tied(m, 8)], 1).sign()
    a[a.abs().sum(1) < 16], b[b.abs().sum(1) < 16] = 0, 0
    independent.check_mutual(a, b, mutual_nearest(a, b)[0])


@settings(max_examples=20)
@given(seed=seeds)
def test_exchanging_the_images_exchanges_the_pairs(seed: int) -> None:
    a, b = random(12, 16, seed=seed), random(9, 16, seed=seed + 5000)
    there, back = mutual_nearest(a, b)[0], mutual_nearest(b, a)[0]
    assert set(map(tuple, there.tolist())) == {(i, j) for j, i in back.tolist()}


@settings(max_examples=20)
@given(seed=seeds, exponent=st.integers(-36, 36))
def test_lengths_do_not_matter_however_small_or_large(seed: int, exponent: int) -> None:
    a, b = random(12, 16, seed=seed), random(9, 16, seed=seed + 5000)
    indices, scores = mutual_nearest(a, b)
    scaled, scaled_scores = mutual_nearest(a * 10.0**exponent, b * 10.0**-exponent)
    assert torch.equal(scaled, indices)
    torch.testing.assert_close(scaled_scores, scores, rtol=0, atol=1e-6)


def test_everything_matches_itself_with_score_one() -> None:
    indices, scores = mutual_nearest(random(50, 16), random(50, 16))
    assert torch.equal(indices, torch.arange(50)[:, None].expand(50, 2))
    torch.testing.assert_close(scores, torch.ones(50))
    assert scores.max() <= 1


def test_of_duplicates_the_first_is_matched() -> None:
    vector = random(1, 16)
    indices, _ = mutual_nearest(vector.expand(600, 16), vector.expand(1500, 16))
    assert indices.tolist() == [[0, 0]]


def test_zero_vectors_are_as_if_they_were_not_there() -> None:
    # The zero vector has cosine 0, more than the -1 of the only other.
    a, b = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [-1.0, 0.0]])
    indices, scores = mutual_nearest(a, b)
    assert indices.tolist() == [[1, 1]]
    assert scores.tolist() == [-1.0]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(0, 4), torch.ones(3, 4)),
        (torch.ones(3, 4), torch.zeros(0, 4)),
        (torch.zeros(0, 4), torch.zeros(0, 4)),
        (torch.zeros(5, 4), torch.ones(3, 4)),
        (torch.ones(5, 4), torch.zeros(3, 4)),
    ],
)
def test_nothing_matches_nothing(a: Tensor, b: Tensor) -> None:
    indices, scores = mutual_nearest(a, b)
    assert indices.shape == (0, 2) and indices.dtype == torch.int64
    assert scores.shape == (0,) and scores.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    a, b = random(40, 64).to(dtype), random(50, 64, seed=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        indices, scores = mutual_nearest(a, b)
    expected, expected_scores = mutual_nearest(a.float(), b.float())
    assert torch.equal(indices, expected)
    assert torch.equal(scores, expected_scores)


def test_the_matrix_of_all_pairs_is_never_made() -> None:
    a, b = random(1500, 8), random(5000, 8, seed=1)
    for ratio in (None, 0.9):
        with LargestTensor() as largest:
            mutual_nearest(a, b, ratio=ratio)
        assert largest.elements <= nearest.STRIP["cpu"] < 1500 * 5000


# Tokens of two maps


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


# Many pairs in one call


def assert_same(one: Matches, other: Matches) -> None:
    assert torch.equal(one.points_a, other.points_a)
    assert torch.equal(one.points_b, other.points_b)
    torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-6)


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


# Points at full resolution


@settings(max_examples=40)
@given(size=sizes, grid=grids, seed=seeds)
def test_cosines_equal_upsampling_and_normalising(
    size: tuple[int, int], grid: tuple[int, int], seed: int
) -> None:
    described = random_map(size, grid, width=32, seed=seed)
    queries = F.normalize(random(3, 32, seed=seed + 1), dim=1)
    tokens = described.tokens[0].unflatten(0, grid)
    planes = torch.cat(list(cosine_planes(queries, tokens, size)))
    expected = independent.similarity(queries[None], described.data, size)[0]
    torch.testing.assert_close(planes, expected, rtol=0, atol=5e-6)


@settings(max_examples=40)
@given(size=sizes, grid=grids, seed=seeds)
def test_cosines_stay_exact_where_neighbours_almost_cancel(
    size: tuple[int, int], grid: tuple[int, int], seed: int
) -> None:
    # In two dimensions neighbours are often nearly opposite. What remains of them is known to
    # the rounding of the tokens; so it is here, and not to its square root.
    described = random_map(size, grid, width=2, seed=seed)
    query = F.normalize(random(1, 2, seed=seed + 1), dim=1)
    [[plane]] = cosine_planes(query, described.tokens[0].unflatten(0, grid), size)
    expected = independent.similarity(query[None].double(), described.data.double(), size)[0, 0]
    lengths = independent.upsample(described.data.double(), size).norm(dim=1)[0]
    error = (plane - expected).abs() * lengths / described.data.norm(dim=1).max()
    assert error.max() < 3e-6


@settings(max_examples=40)
@given(size_a=sizes, size_b=sizes, grid_a=grids, grid_b=grids, seed=seeds)
def test_points_equal_the_argmax_over_all_pixels(
    size_a: tuple[int, int],
    size_b: tuple[int, int],
    grid_a: tuple[int, int],
    grid_b: tuple[int, int],
    seed: int,
) -> None:
    a = random_map(size_a, grid_a, batch=2, seed=seed)
    b = random_map(size_b, grid_b, batch=2, seed=seed + 5000)
    points = random_pixels(a, 4, seed)
    matches = match_points(a, points, b)
    assert torch.equal(matches.points_a, points)
    upsampled = independent.upsample(a.data, size_a)
    for image in range(2):
        for k, (x, y) in enumerate(points[image].long().tolist()):
            query = upsampled[image, :, y, x]
            cosines = independent.similarity(query[None, None], b[image].data, size_b)[0, 0]
            best = cosines.max()
            assert abs(matches.scores[image, k] - best.clamp(-1, 1)) < 5e-6
            found_x, found_y = matches.points_b[image, k].long().tolist()
            # Where the second pixel is as good to rounding, either will do.
            assert best - cosines[found_y, found_x] < 1e-5
            if (cosines > best - 1e-5).sum() == 1:
                assert found_y * size_b[1] + found_x == cosines.argmax()


def test_every_pixel_finds_itself_in_its_own_image() -> None:
    described = random_map((23, 31), (5, 7), width=32)
    y, x = torch.meshgrid(torch.arange(23), torch.arange(31), indexing="ij")
    # The last half-cell at each border is constant: there the first of its pixels is found.
    inner = (x > 2) & (x < 28) & (y > 2) & (y < 20)
    points = torch.stack([x[inner], y[inner]], -1).float()
    matches = match_points(described, points, described)
    assert torch.equal(matches.points_b, points)
    torch.testing.assert_close(matches.scores, torch.ones(len(points)), rtol=0, atol=1e-6)
    assert matches.scores.max() <= 1


def test_of_equal_pixels_the_first_is_taken_row_by_row() -> None:
    # The first and last quarter of each axis repeat the border's token exactly.
    data = torch.zeros(1, 4, 2, 2)
    data[0, :, 0, 1] = torch.tensor([1.0, 0, 0, 0])
    data[0, :, 1, 0] = torch.tensor([1.0, 0, 0, 0])
    described = DescriptorMap(data, Frame((16, 16), (16, 16)))
    matches = match_points(described, torch.tensor([[15.0, 0.0]]), described)
    plane = similarity_maps(described, torch.tensor([[15.0, 0.0]]), described)[0]
    first = int((plane.flatten() == plane.max()).nonzero()[0])
    assert matches.points_b.tolist() == [[first % 16, first // 16]]


def test_images_of_a_batch_are_searched_each_by_itself() -> None:
    a, b = random_map(batch=3), random_map((29, 31), (4, 3), batch=3, seed=1)
    points = random_pixels(a, 5) + 0.3
    together, maps = match_points(a, points, b), similarity_maps(a, points, b)
    assert maps.shape == (3, 5, 29, 31)
    assert len(together) == 5
    for image in range(3):
        alone = match_points(a[image], points[image], b[image])
        assert torch.equal(alone.points_a, points[image])
        assert torch.equal(alone.points_b, together.points_b[image])
        torch.testing.assert_close(alone.scores, together.scores[image], rtol=0, atol=1e-6)
        alone_maps = similarity_maps(a[image], points[image], b[image])
        torch.testing.assert_close(alone_maps, maps[image], rtol=0, atol=2e-6)


def test_lists_of_maps_are_searched_each_by_itself() -> None:
    maps_a, maps_b = [random_map(seed=seed) for seed in (0, 1)], [random_map(seed=2), random_map()]
    points = [random_pixels(random_map(), count)[0] for count in (3, 5)]
    for a, b, p in (
        (maps_a, maps_b, points),
        (maps_a[0], maps_b, points),
        (maps_a, maps_b, points[0]),
    ):
        found = match_points(a, p, b)
        assert isinstance(found, list)
        for index, one in enumerate(found):
            map_a = a[index] if isinstance(a, list) else a
            sought = p[index] if isinstance(p, list) else p
            assert_same(one, match_points(map_a, sought, maps_b[index]))
    with pytest.raises(InvalidArgumentError, match=r"must have one length, got \[1, 2\]"):
        match_points(maps_a, points, maps_b[:1])


def test_the_maps_peak_where_the_points_are_found() -> None:
    a, b = random_map(), random_map((29, 31), (4, 3), seed=1)
    points = random_pixels(a, 5)[0]
    matches, maps = match_points(a, points, b), similarity_maps(a, points, b)
    best = maps.flatten(1).argmax(1)
    assert torch.equal(matches.points_b, torch.stack([best % 31, best // 31], 1).float())
    assert torch.equal(matches.scores, maps.flatten(1).amax(1))


def test_shared_points_are_sought_in_every_image() -> None:
    a, b = random_map(batch=2), random_map(batch=2, seed=1)
    points = torch.tensor([[[3.0, 4.0], [50.5, 20.25]]])
    shared, given_twice = match_points(a, points, b), match_points(a, points.expand(2, 2, 2), b)
    assert torch.equal(shared.points_a, given_twice.points_a)
    assert torch.equal(shared.points_b, given_twice.points_b)


def test_many_points_go_in_pieces_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random_map(), random_map(seed=1)
    points = random_pixels(a, 7)
    whole = match_points(a, points, b)
    monkeypatch.setattr(similarity, "_PIXELS", 3 * 37 * 53)
    pieces = match_points(a, points, b)
    assert torch.equal(pieces.points_b, whole.points_b)
    torch.testing.assert_close(pieces.scores, whole.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 2), (1, 0, 2)])
def test_no_points_give_no_matches(shape: tuple[int, ...]) -> None:
    described = random_map()
    matches = match_points(described, torch.zeros(shape), described)
    assert len(matches) == 0
    assert matches.points_a.shape == matches.points_b.shape == shape
    assert matches.scores.shape == shape[:-1]
    assert similarity_maps(described, torch.zeros(shape), described).shape == (*shape[:-1], 37, 53)


def test_zero_and_cancelling_descriptors_give_zeros() -> None:
    data = random(1, 8, 3, 4)
    data[..., :2] = 0
    holed = DescriptorMap(data, Frame((15, 24), (32, 32)))
    whole = random_map((15, 24), (3, 4), width=8, seed=1)
    maps = similarity_maps(whole, torch.tensor([[5.0, 5.0]]), holed)
    assert bool(torch.isfinite(maps).all())
    assert bool((maps[..., :9] == 0).all())
    matches = match_points(holed, torch.tensor([[2.0, 2.0]]), whole)
    assert matches.points_b.tolist() == [[0.0, 0.0]]
    assert matches.scores.tolist() == [0.0]

    opposite = DescriptorMap(torch.cat([data[..., 3:], -data[..., 3:]], 3), Frame((3, 3), (3, 3)))
    # The middle column lies halfway between opposite tokens.
    middle = similarity_maps(opposite, torch.tensor([[0.0, 0.0]]), opposite)[0, :, 1]
    assert bool((middle == 0).all())


@given(seed=seeds)
@settings(max_examples=20)
def test_what_rounding_leaves_of_cancelled_descriptors_is_no_direction(seed: int) -> None:
    # A third of the way from one token to minus twice it; thirds are not exact.
    token = random(16, seed=seed)
    data = torch.stack([token, -2 * token], 1).view(1, 16, 1, 2)
    tokens = data.flatten(2)[0].T.view(1, 2, 16)
    [[plane]] = cosine_planes(F.normalize(token[None], dim=1), tokens, (1, 6))
    expected = torch.tensor([[1.0, 1, 0, -1, -1, -1]])
    torch.testing.assert_close(plane, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("exponent", [-30, -12, 5, 30])
def test_the_size_of_the_descriptors_does_not_matter(exponent: int) -> None:
    a, b = random_map(), random_map(seed=1)
    points = random_pixels(a, 5)
    scaled = DescriptorMap(b.data * 10.0**exponent, b.frame)
    maps = similarity_maps(a, points, b)
    torch.testing.assert_close(similarity_maps(a, points, scaled), maps, rtol=0, atol=2e-6)
    back = similarity_maps(scaled, points, a)
    torch.testing.assert_close(back, similarity_maps(b, points, a), rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_points_in_maps_of_other_dtypes_are_found_in_float32(dtype: torch.dtype) -> None:
    a, b = random_map(), random_map(seed=1)
    a, b = DescriptorMap(a.data.to(dtype), a.frame), DescriptorMap(b.data.to(dtype), b.frame)
    points = random_pixels(a, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = match_points(a, points.to(torch.int64), b)
    plain_a = DescriptorMap(a.data.float(), a.frame)
    expected = match_points(plain_a, points, DescriptorMap(b.data.float(), b.frame))
    assert torch.equal(found.points_a, points)
    assert torch.equal(found.points_b, expected.points_b)
    assert torch.equal(found.scores, expected.scores)


def test_descriptors_at_full_resolution_are_never_made() -> None:
    a, b = random_map(width=64), random_map((120, 160), (12, 16), width=64, seed=1)
    with LargestTensor() as largest:
        match_points(a, random_pixels(a, 6), b)
    # The largest holds the cosines of the six points.
    assert largest.elements <= 6 * 120 * 160


def test_results_carry_no_gradients() -> None:
    described = DescriptorMap(random(1, 8, 3, 4).requires_grad_(), Frame((9, 12), (9, 12)))
    point = torch.tensor([[3.0, 3.0]])
    assert not match(described, described).scores.requires_grad
    assert not match_points(described, point, described).scores.requires_grad
    assert not similarity_maps(described, point, described).requires_grad


# Errors


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
    with pytest.raises(InvalidArgumentError, match=r"map_b\[1\] holds 3 images .* map_b\[1\]\[0\]"):
        match([random_map()] * 2, [random_map(), random_map(batch=3)])
    with pytest.raises(InvalidArgumentError, match="equally many images, .* got 2 and 3"):
        match(random_map(batch=2), random_map(batch=3))
    with pytest.raises(InvalidArgumentError, match="mask_a must hold 2 masks, one per pair, got 1"):
        match(random_map(), random_map(batch=2), mask_a=[None])
    with pytest.raises(InvalidArgumentError, match="map_a must hold DescriptorMaps, got Tensor at"):
        match([torch.ones(1, 2, 3, 4)], random_map())  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError, match="equally many images, got 2 and 3"):
        match_points(random_map(batch=2), torch.zeros(2, 1, 2), random_map(batch=3))


@pytest.mark.parametrize("shape", [(2,), (5, 3), (2, 5, 2), (1, 5, 3), (1, 1, 5, 2), ()])
def test_points_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"points must have the shape \(1, K, 2\)"):
        match_points(random_map(), torch.zeros(shape), random_map())
    with pytest.raises(InvalidArgumentError, match=r"points must have the shape \(1, K, 2\)"):
        similarity_maps(random_map(), torch.zeros(shape), random_map())


def test_points_without_a_batch_axis_are_refused_for_several_images() -> None:
    with pytest.raises(InvalidArgumentError, match=r"points must have the shape \(2, K, 2\)"):
        match_points(random_map(batch=2), torch.zeros(2, 2), random_map(batch=2))


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), ()])
def test_descriptors_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"descriptors_b must have the shape \(M, D\)"):
        mutual_nearest(torch.ones(3, 4), torch.ones(shape))


def test_an_array_is_refused_where_a_tensor_is_needed() -> None:
    with pytest.raises(InvalidArgumentError, match="descriptors_a must be a tensor, got ndarray"):
        mutual_nearest(torch.ones(3, 4).numpy(), torch.ones(3, 4))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="points must be a tensor, got list"):
        match_points(random_map(), [[1, 2]], random_map())  # type: ignore[arg-type]


def test_descriptors_on_two_devices_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="got cpu and meta"):
        mutual_nearest(torch.ones(3, 4), torch.ones(3, 4, device="meta"))


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
