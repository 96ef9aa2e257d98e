from __future__ import annotations

import independent
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching import keypoints as transfer
from kornia_ditf.matching.keypoints import (
    Argmax,
    TopK,
    WindowSoftArgmax,
    match_points,
    prepare_target,
    similarity_maps,
)
from kornia_ditf.types import DescriptorMap, Frame

seeds = st.integers(0, 1000)


def random_map(
    size: tuple[int, int], grid: tuple[int, int], *, batch: int = 1, width: int = 24, seed: int = 0
) -> DescriptorMap:
    generator = torch.Generator().manual_seed(seed)
    return DescriptorMap(torch.randn(batch, width, *grid, generator=generator), Frame(size, (9, 9)))


def random_pixels(size: tuple[int, int], *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 2, generator=generator) * torch.tensor([size[1], size[0]]) - 0.5


def geoaware(cosines: Tensor, radius: int, beta: float) -> tuple[float, float]:
    """GeoAware-SC's window soft-argmax of one point, in tokens, written out in NumPy."""
    values = cosines.double().numpy()
    peak_y, peak_x = np.unravel_index(values.argmax(), values.shape)
    windowed = np.zeros_like(values)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            if abs(y - peak_y) <= radius and abs(x - peak_x) <= radius:
                windowed[y, x] = values[y, x]
    weights = np.exp((windowed - windowed.max()) / beta)
    weights /= weights.sum()
    rows, columns = np.indices(values.shape)
    return float((weights * columns).sum()), float((weights * rows).sum())


@settings(max_examples=20)
@given(
    size=st.tuples(st.integers(2, 40), st.integers(2, 40)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    radius=st.integers(0, 8),
    seed=seeds,
)
def test_the_window_soft_argmax_is_that_of_geoaware(
    size: tuple[int, int], grid: tuple[int, int], radius: int, seed: int
) -> None:
    a, b = random_map((30, 20), (4, 5), seed=seed), random_map(size, grid, seed=seed + 5000)
    points = random_pixels((30, 20), 3, seed=seed)
    decode = WindowSoftArgmax(beta=0.05, radius=radius)
    matches = match_points(a, points, b, decode=decode)
    queries = a.at(points[None])
    cosines = independent.similarity(queries, b.data, grid)[0]
    for k in range(3):
        x, y = geoaware(cosines[k], radius, 0.05)
        expected = ((x + 0.5) * size[1] / grid[1] - 0.5, (y + 0.5) * size[0] / grid[0] - 0.5)
        torch.testing.assert_close(matches.points_b[k], torch.tensor(expected), rtol=0, atol=2e-3)
        assert abs(matches.scores[k] - cosines[k].max()) < 2e-6

    in_pixels = match_points(
        a, points, b, decode=WindowSoftArgmax(beta=0.05, radius=radius, grid="pixels")
    )
    for k, plane in enumerate(similarity_maps(a, points, b)):
        expected = geoaware(plane, radius, 0.05)
        torch.testing.assert_close(in_pixels.points_b[k], torch.tensor(expected), rtol=0, atol=2e-3)


def test_a_cold_softmax_is_the_argmax() -> None:
    a, b = random_map((30, 20), (4, 5)), random_map((25, 35), (5, 7), seed=1)
    points = random_pixels((30, 20), 6)
    best = match_points(a, points, b, decode=Argmax())
    cold = match_points(a, points, b, decode=WindowSoftArgmax(beta=1e-6, radius=2, grid="pixels"))
    torch.testing.assert_close(cold.points_b, best.points_b, rtol=0, atol=1e-3)
    assert torch.equal(cold.scores, best.scores)


@settings(max_examples=20)
@given(seed=seeds, count=st.integers(1, 6), apart=st.integers(0, 6))
def test_the_best_pixels_equal_a_sorted_list_with_the_near_ones_struck_out(
    seed: int, count: int, apart: int
) -> None:
    a, b = random_map((30, 20), (4, 5), seed=seed), random_map((9, 14), (3, 4), seed=seed + 5000)
    points = random_pixels((30, 20), 2, seed=seed)
    matches = match_points(a, points, b, decode=TopK(count=count, apart=apart))
    assert matches.points_b.shape == (2, count, 2) and matches.scores.shape == (2, count)
    assert torch.equal(matches.points_a, points[:, None].expand(2, count, 2))
    for k, plane in enumerate(similarity_maps(a, points, b).tolist()):
        values = {(x, y): value for y, row in enumerate(plane) for x, value in enumerate(row)}
        for rank in range(count):
            x, y = matches.points_b[k, rank].long().tolist()
            if not values:
                assert matches.scores[k, rank] == -torch.inf
                continue
            assert matches.scores[k, rank] == max(values.values()) == values[x, y]
            values = {
                (u, v): value
                for (u, v), value in values.items()
                if max(abs(u - x), abs(v - y)) > apart
            }


def test_the_first_of_several_is_the_best() -> None:
    a, b = random_map((30, 20), (4, 5), batch=2), random_map((25, 35), (5, 7), batch=2, seed=1)
    points = random_pixels((30, 20), 2, 4)
    several, best = match_points(a, points, b, decode=TopK(count=3)), match_points(a, points, b)
    assert torch.equal(several.points_b[:, :, 0], best.points_b)
    assert torch.equal(several.scores[:, :, 0], best.scores)


@pytest.mark.parametrize("decode", [Argmax(), TopK(count=2), WindowSoftArgmax()])
@pytest.mark.parametrize("shape", [(0, 2), (2, 0, 2)])
def test_no_points_give_no_places(decode: transfer.Decoder, shape: tuple[int, ...]) -> None:
    described = random_map((30, 20), (4, 5), batch=2 if len(shape) == 3 else 1)
    matches = match_points(described, torch.zeros(shape), described, decode=decode)
    extra = (2,) if isinstance(decode, TopK) else ()
    assert matches.points_b.shape == (*shape[:-1], *extra, 2)
    assert matches.scores.shape == matches.points_b.shape[:-1]


@pytest.mark.parametrize("decode", [Argmax(), TopK(count=2), WindowSoftArgmax()])
def test_a_prepared_target_gives_the_same(decode: transfer.Decoder) -> None:
    a, b = random_map((30, 20), (4, 5), batch=2), random_map((25, 35), (5, 7), batch=2, seed=1)
    points = random_pixels((30, 20), 2, 4)
    target = prepare_target(b)
    assert len(target) == 2 and target.grid == (5, 7)
    prepared, plain = (match_points(a, points, to, decode=decode) for to in (target, b))
    assert torch.equal(prepared.points_b, plain.points_b)
    assert torch.equal(prepared.scores, plain.scores)
    assert torch.equal(similarity_maps(a, points, target), similarity_maps(a, points, b))


def test_searching_a_prepared_target_computes_no_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    described = random_map((30, 20), (4, 5))
    target = prepare_target(described)
    monkeypatch.setattr(transfer, "inverse_lengths", None)
    assert len(match_points(described, torch.zeros(1, 2), target)) == 1


def test_a_broken_target_is_refused() -> None:
    described = random_map((30, 20), (4, 5))
    described.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(InvalidArgumentError, match="descriptors must be finite"):
        prepare_target(described)


def test_a_target_of_another_width_is_refused() -> None:
    a, b = random_map((30, 20), (4, 5)), random_map((30, 20), (4, 5), width=7)
    with pytest.raises(InvalidArgumentError, match="D = 24 and 7"):
        match_points(a, torch.zeros(1, 2), prepare_target(b))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(count=0), "count must be 1 or more, got 0"),
        (lambda: TopK(apart=-1), "apart must be 0 or more, got -1"),
        (lambda: WindowSoftArgmax(beta=0), "beta must be above 0, got 0"),
        (lambda: WindowSoftArgmax(radius=1.5), "radius must be an integer"),  # type: ignore[arg-type]
        (lambda: WindowSoftArgmax(grid="cells"), "grid must be one of tokens, pixels, got 'cells'"),  # type: ignore[arg-type]
    ],
)
def test_decoders_check_their_numbers(make: object, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()  # type: ignore[operator]


def test_an_unknown_decoder_is_refused() -> None:
    described = random_map((30, 20), (4, 5))
    with pytest.raises(InvalidArgumentError, match="decode must be Argmax"):
        match_points(described, torch.zeros(1, 2), described, decode="argmax")  # type: ignore[arg-type]
