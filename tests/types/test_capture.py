from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import Conditioning, Tap, TokenNorm


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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
