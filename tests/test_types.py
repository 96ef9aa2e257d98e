from __future__ import annotations

import dataclasses

import independent
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import Conditioning, DescriptorMap, Frame, Matches, Tap, TokenNorm

seeds = st.integers(0, 1000)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_map(
    size: tuple[int, int] = (37, 53), grid: tuple[int, int] = (5, 7), batch: int = 1, seed: int = 0
) -> DescriptorMap:
    return DescriptorMap(random(batch, 16, *grid, seed=seed), Frame(size, (32, 32)))


def fractions(count: int, seed: int) -> Tensor:
    return torch.rand(1, count, 2, generator=torch.Generator().manual_seed(seed))


# Frame

odd = st.integers(0, 2500).map(lambda half: 2 * half + 1)


@settings(max_examples=50)
@given(
    image=st.tuples(odd, odd),
    model=st.tuples(st.integers(16, 1024), st.integers(16, 1024)),
    seed=seeds,
)
def test_points_go_to_the_model_and_back_within_a_thousandth_of_a_pixel(
    image: tuple[int, int], model: tuple[int, int], seed: int
) -> None:
    for height, width in (image, image[::-1]):
        frame = Frame((height, width), model)
        points = fractions(50, seed) * torch.tensor([width, height]) - 0.5
        back = frame.to_image(frame.to_model(points))
        assert (back - points).abs().max() < 1e-3


@given(image=sizes, model=sizes)
def test_edges_go_to_edges_and_centres_to_centres(
    image: tuple[int, int], model: tuple[int, int]
) -> None:
    frame = Frame(image, model)

    def landmarks(height: int, width: int) -> Tensor:
        corner = torch.tensor([width - 0.5, height - 0.5], dtype=torch.float64)
        return torch.stack([torch.full_like(corner, -0.5), (corner - 0.5) / 2, corner])

    torch.testing.assert_close(frame.to_model(landmarks(*image)), landmarks(*model))
    torch.testing.assert_close(frame.to_image(landmarks(*model)), landmarks(*image))


def test_a_points_dtype_stays_unless_it_cannot_hold_the_result() -> None:
    frame = Frame((480, 640), (240, 320))
    expected = torch.tensor([[249.75, 99.75]])
    for dtype in (torch.float32, torch.int64, torch.float16, torch.bfloat16):
        point = torch.tensor([[500, 200]]).to(dtype)
        assert torch.equal(frame.to_model(point), expected)
    assert frame.to_model(point.double()).dtype == torch.float64


# Conditioning


def test_rows_are_expanded_image_by_image() -> None:
    told = Conditioning({"text": torch.tensor([[1], [2]]), "shared": torch.tensor([[7]])})
    expanded = told.expand(6)
    assert expanded["text"].flatten().tolist() == [1, 1, 1, 2, 2, 2]
    assert expanded["shared"].flatten().tolist() == [7] * 6


@pytest.mark.parametrize(("rows", "batch"), [(4, 6), (3, 2), (0, 2)])
def test_rows_that_do_not_fit_the_images_are_refused(rows: int, batch: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"'text' has {rows} rows, .* {batch} images"):
        Conditioning({"text": torch.zeros(rows, 3)}).expand(batch)


def test_rows_are_those_of_the_images() -> None:
    told = Conditioning({"text": random(5, 3), "pooled": random(5, 2)})
    for name in ("text", "pooled"):
        assert torch.equal(told.rows(3, 7)[name], told[name][3:])
    assert not Conditioning().rows(0, 2).tensors


def test_moving_changes_the_dtype_of_floating_point_tensors_only() -> None:
    told = Conditioning({"text": random(1, 3), "label": torch.tensor([3])})
    moved = told.to(torch.device("cpu"), torch.bfloat16)
    assert moved["text"].dtype == torch.bfloat16
    assert moved["label"].dtype == torch.int64


# Tap and its normalisation


def random_tap(batch: int = 6, seed: int = 0) -> Tap:
    return Tap(
        random(batch, 12, 8, seed=seed),
        random(batch, 8, seed=seed + 1),
        random(batch, 12, 8, seed=seed + 2),
        grid=(3, 4),
    )


def test_noise_draws_are_averaged_image_by_image() -> None:
    tap = random_tap(6)
    mean = tap.mean(3)
    for image in range(2):
        draws = slice(3 * image, 3 * image + 3)
        for name in ("x", "shift", "scale"):
            torch.testing.assert_close(
                getattr(mean, name)[image], getattr(tap, name)[draws].mean(0)
            )
    assert mean.grid == tap.grid and mean.norm is tap.norm


def test_averaging_then_normalising_is_not_normalising_then_averaging() -> None:
    tap = random_tap(6)
    first_mean = tap.norm(tap.mean(3).x)
    first_norm = dataclasses.replace(tap, x=tap.norm(tap.x)).mean(3).x
    assert (first_mean - first_norm).abs().max() > 0.1


def test_means_are_taken_in_float32() -> None:
    # 2048 + 1 is 2048 in bfloat16.
    x = torch.tensor([2048.0, 1.0]).bfloat16().view(2, 1, 1)
    mean = Tap(x, None, None, grid=(1, 1)).mean(2)
    assert mean.x.item() == 1024.5
    assert mean.shift is None and mean.scale is None


def test_weighted_sums_of_partial_means_are_the_mean() -> None:
    tap = random_tap(5)

    def part(draws: slice) -> Tap:
        assert tap.shift is not None and tap.scale is not None
        return Tap(tap.x[draws], tap.shift[draws], tap.scale[draws], tap.grid)

    parts = part(slice(0, 3)).mean(3) * (3 / 5) + part(slice(3, 5)).mean(2) * (2 / 5)
    for name in ("x", "shift", "scale"):
        torch.testing.assert_close(getattr(parts, name), getattr(tap.mean(5), name))


def test_taps_of_several_images_are_joined() -> None:
    one, other = random_tap(2), random_tap(3, seed=9)
    joined = Tap.cat([one, other])
    assert joined.shift is not None and one.shift is not None and other.shift is not None
    assert torch.equal(joined.x, torch.cat([one.x, other.x]))
    assert torch.equal(joined.shift, torch.cat([one.shift, other.shift]))
    assert Tap.cat([one]) is one


@pytest.mark.parametrize("affine", [False, True])
def test_normalisations_follow_their_definitions(affine: bool) -> None:
    x = random(2, 5, 8).double() + 3
    weight, bias = (random(8, seed=1).double(), random(8, seed=2).double()) if affine else (1, 0)
    given_weight = weight if isinstance(weight, Tensor) else None
    given_bias = bias if isinstance(bias, Tensor) else None
    centred = x - x.mean(-1, keepdim=True)
    layer = centred / (centred.square().mean(-1, keepdim=True) + 0.1).sqrt() * weight + bias
    root = x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt() * weight
    torch.testing.assert_close(TokenNorm("layer", 0.1, given_weight, given_bias)(x), layer)
    torch.testing.assert_close(TokenNorm("rms", 0.1, given_weight)(x), root)


# DescriptorMap


@settings(max_examples=40)
@given(size=sizes, grid=grids, seed=seeds)
def test_reading_at_pixels_equals_upsampling_and_indexing(
    size: tuple[int, int], grid: tuple[int, int], seed: int
) -> None:
    described = random_map(size, grid, batch=2, seed=seed)
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    read = described.at(torch.stack([x, y], -1).view(1, -1, 2))
    expected = F.normalize(independent.upsample(described.data, size), dim=1)
    torch.testing.assert_close(read, expected.flatten(2).transpose(1, 2), rtol=0, atol=8e-6)


@settings(max_examples=40)
@given(size=sizes, grid=grids, seed=seeds)
def test_reading_between_pixels_interpolates_the_four_tokens_around(
    size: tuple[int, int], grid: tuple[int, int], seed: int
) -> None:
    described = random_map(size, grid, seed=seed)
    # Also up to half an image beyond the border, where the border's descriptor is read.
    points = (2 * fractions(20, seed) - 0.5) * torch.tensor([size[1], size[0]]) - 0.5
    read = described.at(points)[0]
    for point, found in zip(points[0].tolist(), read, strict=True):
        expected = independent.interpolate_at(described.data.double(), *point, size)
        unit = F.normalize(expected, dim=0)
        torch.testing.assert_close(found.double(), unit, rtol=0, atol=8e-6)


@settings(max_examples=40)
@given(size=sizes, grid=grids, seed=seeds)
def test_reading_at_token_centres_returns_the_tokens(
    size: tuple[int, int], grid: tuple[int, int], seed: int
) -> None:
    described = random_map(size, grid, seed=seed)
    read = described.at(described.centres()[None])
    expected = F.normalize(described.tokens, dim=2)
    torch.testing.assert_close(read, expected, rtol=0, atol=8e-6)


def test_centres_lie_in_the_middle_of_their_cells() -> None:
    described = random_map((30, 40), (3, 2))
    expected = [[9.5, 4.5], [29.5, 4.5], [9.5, 14.5], [29.5, 14.5], [9.5, 24.5], [29.5, 24.5]]
    assert described.centres().tolist() == expected


def test_tokens_go_row_by_row_as_the_centres_do() -> None:
    described = random_map(grid=(2, 3))
    assert described.grid == (2, 3)
    assert torch.equal(described.tokens[0, 4], described.data[0, :, 1, 1])


def test_read_descriptors_have_unit_length_in_float32_however_small_or_large() -> None:
    described = random_map()
    points = described.centres()[None]
    for dtype, size in ((torch.float32, 1e-30), (torch.float32, 1e30), (torch.bfloat16, 1e-20)):
        scaled = DescriptorMap((size * described.data).to(dtype), described.frame)
        read = scaled.at(points)
        assert read.dtype == torch.float32
        torch.testing.assert_close(read.norm(dim=2), torch.ones(1, 35))
    zero = DescriptorMap(torch.zeros(1, 4, 2, 2), described.frame)
    assert bool((zero.at(points) == 0).all())


def test_each_image_reads_its_own_points_and_shared_ones() -> None:
    described = random_map(batch=3)
    own = 30 * random(3, 4, 2).abs()
    read = described.at(own)
    for image in range(3):
        assert torch.equal(described[image].at(own[image : image + 1])[0], read[image])
    assert torch.equal(described.at(own[:1]), described.at(own[:1].expand(3, 4, 2)))
    assert described.at(own[:1].long()).shape == (3, 4, 16)


def test_no_points_read_no_descriptors() -> None:
    assert random_map(batch=2).at(torch.zeros(2, 0, 2)).shape == (2, 0, 16)


def test_reading_keeps_gradients() -> None:
    data = random(1, 4, 3, 3).requires_grad_()
    DescriptorMap(data, Frame((9, 9), (9, 9))).at(torch.tensor([[[2.0, 3.0]]])).sum().backward()
    assert data.grad is not None and bool(torch.isfinite(data.grad).all())
    assert int((data.grad.abs().sum(1) > 0).sum()) == 4


def test_indexing_and_iterating_give_single_images() -> None:
    described = random_map(batch=3)
    assert len(described) == 3
    assert [image.data.shape[0] for image in described] == [1, 1, 1]
    for index, image in enumerate(described):
        assert torch.equal(image.data[0], described.data[index])
        assert torch.equal(described[index - 3].data, image.data)
        assert image.frame is described.frame
    for index in (3, -4):
        with pytest.raises(IndexError, match="batch of 3"):
            described[index]


@pytest.mark.parametrize(
    "shape", [(4, 3, 3), (1, 4, 9, 1, 1), (0, 4, 3, 3), (1, 0, 3, 3), (1, 4, 0, 3)]
)
def test_descriptor_data_of_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"shape \(B, D, rows, columns\)"):
        DescriptorMap(torch.zeros(shape), Frame((9, 9), (9, 9)))


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 5, 2), (2, 5, 3), (1, 2, 5, 2)])
def test_points_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"points must have the shape \(2, K, 2\)"):
        random_map(batch=2).at(torch.zeros(shape))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_points_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(InvalidArgumentError, match="points must be finite"):
        random_map().at(torch.tensor([[[1.0, value]]]))


# Matches


def test_the_best_matches_come_best_first_and_whole() -> None:
    points, scores = random(10, 2), random(10)
    best = Matches(points, -points, scores).best(4)
    assert torch.equal(best.scores, scores.sort(descending=True).values[:4])
    for point_a, point_b, score in zip(best.points_a, best.points_b, best.scores, strict=True):
        row = int((scores == score).nonzero())
        assert torch.equal(point_a, points[row]) and torch.equal(point_b, -points[row])


def test_of_equal_scores_the_first_stays_first() -> None:
    points = torch.arange(6.0).view(3, 2)
    assert torch.equal(Matches(points, points, torch.ones(3)).best(2).points_a, points[:2])


def test_the_best_of_a_batch_are_the_best_of_each_pair() -> None:
    points, scores = random(3, 10, 2), random(3, 10)
    matches = Matches(points, -points, scores)
    assert len(matches) == 10
    best = matches.best(4)
    for pair in range(3):
        alone = Matches(points[pair], -points[pair], scores[pair]).best(4)
        assert torch.equal(best.points_a[pair], alone.points_a)
        assert torch.equal(best.points_b[pair], alone.points_b)
        assert torch.equal(best.scores[pair], alone.scores)


def test_more_than_there_are_is_all_there_are() -> None:
    assert len(Matches(random(3, 2), random(3, 2), random(3)).best(10)) == 3
    assert len(Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0)).best(10)) == 0
