from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf import DescriptorMap, Frame, joint_pca, match
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types.joining import join_maps


def maps(width: int = 12, seed: int = 0) -> list[DescriptorMap]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(0, -2, width)
    return [
        DescriptorMap(
            (torch.randn(1, rows, 6, width, generator=generator) @ mixing.T + 3).permute(
                0, 3, 1, 2
            ),
            Frame((8 * rows, 48), (8 * rows, 48)),
        )
        for rows in (5, 7)
    ]


def reference(a: DescriptorMap, b: DescriptorMap, width: int) -> np.ndarray[Any, Any]:
    """PCA by the covariance's eigenvectors, in double precision."""
    tokens = torch.cat([a.tokens[0], b.tokens[0]]).double().numpy()
    centred = tokens - tokens.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :width]
    return np.asarray(centred @ axes)


def joined(pair: tuple[DescriptorMap, DescriptorMap]) -> Tensor:
    return torch.cat([each.tokens[0] for each in pair]).double()


@pytest.mark.parametrize("width", [3, 12, 40])
def test_joint_pca_is_the_pca_of_both_images_tokens(width: int) -> None:
    a, b = maps()
    found, expected = joined(joint_pca(a, b, width)).numpy(), reference(a, b, width)
    assert found.shape[1] == min(width, 12)
    signs = np.sign((found * expected).sum(0))  # an axis may point either way
    np.testing.assert_allclose(found * signs, expected, atol=1e-5)


def test_low_rank_is_torchs_arithmetic_and_always_the_same() -> None:
    a, b = maps(40)
    state = torch.random.get_rng_state()
    found = joined(joint_pca(a, b, 20, method="lowrank"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(found, joined(joint_pca(a, b, 20, method="lowrank")))
    tokens = torch.cat([a.tokens[0], b.tokens[0]])
    torch.manual_seed(0)
    axes = torch.pca_lowrank(tokens, q=20)[2]
    expected = (tokens - tokens.mean(0)) @ axes
    torch.testing.assert_close(found.float().abs(), expected.abs(), rtol=0, atol=1e-4)
    exact = torch.from_numpy(reference(a, b, 20))
    assert 0.97 * exact.square().sum() < found.square().sum() <= 1.0001 * exact.square().sum()


def test_parts_are_reduced_each_by_itself_as_sd_dino_does() -> None:
    a, b = maps()
    parts = [
        [DescriptorMap(each.data[:, start:stop], each.frame) for each in (a, b)]
        for start, stop in ((0, 5), (5, 12))
    ]
    apart = [joined(joint_pca(*part, width)) for part, width in zip(parts, (2, 4), strict=True)]
    together = joined(joint_pca(a, b, (2, 4), parts=(5, 7)))
    torch.testing.assert_close(together, torch.cat(apart, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be 1 or more"),
        ({"width": (2, 2)}, "parts must add up to 12"),
        ({"width": 2, "parts": (5, 6)}, "parts must add up to 12"),
        ({"width": 2, "method": "full"}, "method must be one of exact, lowrank"),
    ],
)
def test_wrong_widths_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        joint_pca(*maps(), **options)
    with pytest.raises(InvalidArgumentError, match="D = 12 and 8"):
        joint_pca(maps(12)[0], maps(8)[0], 2)


def test_matching_takes_the_reduced_tokens_of_each_pair() -> None:
    (a, b), (c, _) = maps(), maps(seed=1)
    for found, pair in zip(match([a, c], b, pca=3), ((a, b), (c, b)), strict=True):
        expected = match(*joint_pca(*pair, 3))
        assert torch.equal(found.points_a, expected.points_a)
        torch.testing.assert_close(found.scores, expected.scores)
    with pytest.raises(InvalidArgumentError, match="pca must be a number of components"):
        match(a, b, pca="3")  # type: ignore[call-overload]


def test_the_parts_of_joined_maps_are_known_and_some_may_be_left(tmp_path: Path) -> None:
    pairs = maps(5), maps(7)
    a, b = (join_maps(list(each)) for each in zip(*pairs, strict=True))
    a.save(tmp_path / "a.safetensors")
    stored = DescriptorMap.load(tmp_path / "a.safetensors")
    assert stored.parts == b.parts == (5, 7)
    left, right = joint_pca(stored, b, (2, 0))
    assert left.data.shape[1] == 9 and torch.equal(left.data[:, 2:], a.data[:, 5:])
    unit = [replace(each, data=F.normalize(each.data, dim=1)) for each in pairs[0]]
    torch.testing.assert_close(right.data[:, :2], joint_pca(unit[0], unit[1], 2)[1].data)


def test_large_maps_are_reduced_to_the_same_space() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(24, 1100, generator=generator)
    a, b = (
        DescriptorMap(torch.randn(1, 24, 30, 20, generator=generator), Frame((30, 20), (30, 20)))
        for _ in range(2)
    )
    wide = [replace(each, data=torch.einsum("bdhw,dc->bchw", each.data, mixing)) for each in (a, b)]
    found = joined(joint_pca(wide[0], wide[1], 24))
    tokens = torch.cat([each.tokens[0] for each in wide]).double()
    centred = tokens - tokens.mean(0)
    torch.testing.assert_close(found @ found.T, centred @ centred.T, rtol=1e-4, atol=0.1)
