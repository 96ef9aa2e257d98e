"""Principal components as colours: one basis for all images, and always the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.viz.pca import draw_pca


def planted(size: tuple[int, int], box: tuple[int, int, int, int], seed: int) -> DescriptorMap:
    """A noisy background, and an object of four quarters in the box (top, left, bottom, right)."""
    generator = torch.Generator().manual_seed(seed)
    data = 0.02 * torch.randn(1, 32, *size, generator=generator)
    data[:, 0] += 1
    top, left, bottom, right = box
    y, x = (top + bottom) // 2, (left + right) // 2
    data[:, 0, top:bottom, left:right] = -1
    quarters = [(top, y, left, x), (top, y, x, right), (y, bottom, left, x), (y, bottom, x, right)]
    for channel, (y0, y1, x0, x1) in enumerate(quarters, 1):
        data[:, channel, y0:y1, x0:x1] += 0.5
    return DescriptorMap(data, Frame((8 * size[0], 8 * size[1]), (64, 64)))


MAPS = [planted((12, 16), (3, 4, 9, 12), 0), planted((20, 14), (4, 2, 16, 12), 1)]


def test_the_background_is_black_and_like_parts_have_like_colours_in_all_images() -> None:
    first, second = draw_pca(MAPS)
    assert first.shape == (96, 128, 3) and second.shape == (160, 112, 3)
    assert (first[:16] == 0).all() and (second[-16:] == 0).all()
    # The middles of the quarters.
    one = first[36:66:24, 48:86:32].reshape(4, 3).astype(int)
    two = second[60:110:40, 36:80:40].reshape(4, 3).astype(int)
    assert abs(one - two).max() < 40
    apart = abs(one[:, None] - one[None]).sum(-1) + 1000 * (torch.eye(4).numpy() > 0)
    assert apart.min() > 100


def test_equal_descriptors_give_equal_pictures_of_any_length_and_sign_of_basis() -> None:
    state = torch.get_rng_state()
    pictures = draw_pca(MAPS)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    longer = [DescriptorMap(5 * each.data, each.frame) for each in MAPS]
    for one, other in zip(pictures, draw_pca(longer), strict=True):
        assert abs(one.astype(int) - other).max() <= 2


def test_without_a_foreground_every_token_is_coloured() -> None:
    whole = draw_pca(MAPS, foreground=False)
    assert all((each.reshape(-1, 3).max(1) > 0).mean() > 0.9 for each in whole)


def test_a_picture_has_the_size_asked_for_and_the_images_by_default() -> None:
    assert [each.shape for each in draw_pca(MAPS, long_side=32)] == [(24, 32, 3), (32, 22, 3)]
    batch = DescriptorMap(torch.randn(3, 8, 2, 2), Frame((10, 20), (10, 20)))
    assert [each.shape for each in draw_pca(batch)] == [(10, 20, 3)] * 3


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 2, 3, 3), (1, 40, 1, 2), (1, 5, 1, 9)])
def test_few_channels_or_tokens_are_drawn_too(shape: tuple[int, ...]) -> None:
    (picture,) = draw_pca(DescriptorMap(F.relu(torch.randn(shape)), Frame((8, 9), (8, 9))))
    assert picture.shape == (8, 9, 3)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="got none"):
        draw_pca([])
    with pytest.raises(InvalidArgumentError, match="got widths 8, 32"):
        draw_pca([MAPS[0], DescriptorMap(torch.rand(1, 8, 2, 2), MAPS[0].frame)])
    with pytest.raises(InvalidArgumentError, match="finite"):
        draw_pca(DescriptorMap(torch.full((1, 8, 2, 2), torch.nan), MAPS[0].frame))
    with pytest.raises(InvalidArgumentError, match="long_side"):
        draw_pca(MAPS, long_side=0)
