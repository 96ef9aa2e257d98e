from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import independent
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.types import DescriptorMap, Discarded, Frame, Matches

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


def test_a_batch_is_indexed_by_slices_lists_and_masks_and_joined_again() -> None:
    described = replace(
        random_map(batch=3), discarded=tuple(Discarded((k,), "x") for k in range(3))
    )
    for index in (slice(1, 3), [1, 2], torch.tensor([False, True, True])):
        part = described[index]
        assert torch.equal(part.data, described.data[1:]) and part.discarded[0].channels == (1,)
    joined = DescriptorMap.cat(list(described))
    assert torch.equal(joined.data, described.data) and joined.discarded == described.discarded
    with pytest.raises(InvalidArgumentError, match="maps of a batch must be alike"):
        DescriptorMap.cat([described, random_map((40, 40))])
    with pytest.raises(InvalidArgumentError, match="at least one map"):
        DescriptorMap.cat([])


def test_maps_move_and_become_arrays() -> None:
    described = random_map().to(dtype=torch.bfloat16)
    assert described.data.dtype == torch.bfloat16 and described.cpu().data.device.type == "cpu"
    array = described.numpy()
    assert array.dtype.name == "float32" and array.shape == (1, 16, 5, 7)
    assert described.to("meta").data.device.type == "meta"


def test_a_map_is_represented_by_what_it_is_of() -> None:
    described = replace(random_map(batch=2), discarded=(Discarded((3, 5), "preset"),) * 2)
    assert repr(described) == (
        "DescriptorMap(2 images of 53 x 37 px, 7 x 5 tokens, 16 channels, 2 discarded (preset), "
        "float32 on cpu)"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_map_comes_back_from_its_file(dtype: torch.dtype, tmp_path: Path) -> None:
    described = replace(
        random_map(batch=2).to(dtype=dtype), discarded=(Discarded((3,), "preset"),) * 2
    )
    contents = set()
    for name in "ab":
        described.save(tmp_path / name, {"image": "a.jpg"})
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1
    loaded = DescriptorMap.load(tmp_path / "a")
    assert torch.equal(loaded.data, described.data) and loaded.data.dtype == dtype
    assert (loaded.frame, loaded.discarded) == (described.frame, described.discarded)
    with pytest.raises(InvalidArgumentError, match="holds descriptors, got block=3"):
        DescriptorMap.load(tmp_path / "a", block=3)


def test_no_byte_of_a_map_can_change_without_notice(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    DescriptorMap(random(1, 2, 2, 2), Frame((9, 9), (8, 8))).save(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        if whole[place : place + 1] != b" ":
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            with pytest.raises(DamagedFileError, match=str(path)):
                DescriptorMap.load(path)
    for content in (b"", b"{}", whole[:-3], bytes(64)):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match=str(path)):
            DescriptorMap.load(path)
    with pytest.raises(InvalidArgumentError, match="there is no file"):
        DescriptorMap.load(tmp_path / "b")
    Matches(random(3, 2), random(3, 2), random(3)).save(path)
    with pytest.raises(DamagedFileError, match="holds no descriptors"):
        DescriptorMap.load(path)


def test_a_notebook_shows_a_map_as_a_picture() -> None:
    assert random_map()._repr_png_().startswith(b"\x89PNG")
    assert random_map(batch=2).pca(long_side=20).shape == (14, 52, 3)
