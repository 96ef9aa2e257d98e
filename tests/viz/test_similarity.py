"""A similarity map is drawn where it lies in the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.viz.similarity import draw_similarity

GREY = torch.full((1, 3, 300, 450), 0.5)


def test_the_most_similar_token_is_brightest_where_it_lies_in_the_image() -> None:
    similarity = torch.zeros(6, 9)
    similarity[4, 2] = 1
    picture = draw_similarity(GREY, similarity).astype(int)
    assert picture.shape == (300, 450, 3)
    yellow = picture[..., 0] + picture[..., 1] - picture[..., 2]
    y, x = np.unravel_index(yellow.argmax(), yellow.shape)
    assert abs(y - (4.5 * 50 - 0.5)) <= 1 and abs(x - (2.5 * 50 - 0.5)) <= 1


def test_given_limits_make_pictures_comparable() -> None:
    half, whole = torch.full((6, 9), 0.5), torch.full((6, 9), 0.5)
    whole[0, 0] = 1
    limits = (0.0, 1.0)
    one = draw_similarity(GREY, half, limits=limits)
    other = draw_similarity(GREY, whole, limits=limits)
    assert (one[200:, 200:] == other[200:, 200:]).all()
    assert (draw_similarity(GREY, half)[200, 200] != one[200, 200]).any()


def test_the_point_is_marked() -> None:
    similarity = torch.linspace(0, 1, 24).view(4, 6)
    plain = draw_similarity(GREY, similarity)
    marked = draw_similarity(GREY, similarity, point=(100.0, 200.0))
    assert int(marked[200, 100, 0]) - int(marked[200, 100, 1]) > 80
    assert int(plain[200, 100, 0]) - int(plain[200, 100, 1]) < 80


@pytest.mark.parametrize(
    "similarity", [torch.rand(1, 4, 6), torch.rand(0, 6), torch.full((4, 6), torch.nan)]
)
def test_a_similarity_that_is_no_finite_map_is_refused(similarity: torch.Tensor) -> None:
    with pytest.raises(InvalidArgumentError, match="similarity"):
        draw_similarity(GREY, similarity)
