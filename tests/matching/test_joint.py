from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_ditf import DescriptorMap, Frame, joint_pca
from kornia_ditf.errors import InvalidArgumentError


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
    with pytest.raises(InvalidArgumentError, match="two maps of one image each"):
        joint_pca(maps(12)[0], maps(8)[0], 2)
