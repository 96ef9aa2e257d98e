from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kornia_ditf.types import Frame

seeds = st.integers(0, 1000)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def fractions(count: int, seed: int) -> Tensor:
    return torch.rand(1, count, 2, generator=torch.Generator().manual_seed(seed))


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
