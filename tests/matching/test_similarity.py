"""Points at full resolution: the same as upsampling the descriptors and comparing every pixel."""

from __future__ import annotations

import independent
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_maps import LargestTensor, assert_same, random, random_map, random_pixels

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching import match, match_points, similarity, similarity_maps
from kornia_ditf.matching.similarity import cosine_planes
from kornia_ditf.types import DescriptorMap, Frame

seeds = st.integers(0, 1000)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


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
    with pytest.raises(InvalidArgumentError, match=r"must have the same length, got \[1, 2\]"):
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


@pytest.mark.parametrize("shape", [(2,), (5, 3), (2, 5, 2), (1, 5, 3), (1, 1, 5, 2), ()])
def test_points_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"points must have the shape \(1, K, 2\)"):
        match_points(random_map(), torch.zeros(shape), random_map())
    with pytest.raises(InvalidArgumentError, match=r"points must have the shape \(1, K, 2\)"):
        similarity_maps(random_map(), torch.zeros(shape), random_map())


def test_points_without_a_batch_axis_are_refused_for_several_images() -> None:
    with pytest.raises(InvalidArgumentError, match=r"points must have the shape \(2, K, 2\)"):
        match_points(random_map(batch=2), torch.zeros(2, 2), random_map(batch=2))
