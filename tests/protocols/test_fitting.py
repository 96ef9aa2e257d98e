from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kornia_ditf import find_protocol, list_protocols, prepare_image
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.protocols.canvas import from_canvas, to_canvas
from kornia_ditf.protocols.fitting import padded_size
from kornia_ditf.protocols.protocol import Fit, Protocol


def picture(width: int = 53, height: int = 37) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def pixels(image: torch.Tensor) -> np.ndarray:
    return (image[0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)


def test_squashing_is_pillows_resize() -> None:
    fitted = prepare_image(picture(), find_protocol("dift-spair"))
    assert np.array_equal(pixels(fitted), np.asarray(picture().resize((768, 768))))


@pytest.mark.parametrize("size", [(53, 37), (37, 53), (40, 40), (61, 7)])
def test_padding_centres_the_image_in_a_black_square(size: tuple[int, int]) -> None:
    side = 60
    fitted = pixels(prepare_image(picture(*size), Fit(kind="pad", side=side)))
    width, height = size
    # As `resize` of sd-dino and GeoAware-SC.
    if height <= width:
        inner = (side, int(np.around(side * height / width)))
    else:
        inner = (int(np.around(side * width / height)), side)
    canvas = np.zeros((side, side, 3), np.uint8)
    scaled = np.asarray(picture(*size).resize(inner, Image.Resampling.LANCZOS))
    gap = (side - min(inner)) // 2
    if height <= width:
        canvas[gap : gap + inner[1]] = scaled
    else:
        canvas[:, gap : gap + inner[0]] = scaled
    assert np.array_equal(fitted, canvas)


@pytest.mark.parametrize(("size", "expected"), [((854, 480), (480, 832)), ((300, 400), (640, 480))])
def test_the_short_side_is_scaled_as_dino_scales_frames(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    fitted = prepare_image(picture(*size), find_protocol("davis-dino"))
    assert fitted.shape[2:] == expected
    resized = cv2.resize(np.asarray(picture(*size)), expected[::-1])
    assert np.array_equal(pixels(fitted), resized)


@pytest.mark.parametrize("size", [(53, 37), (400, 265), (265, 400), (500, 375)])
def test_the_long_side_is_scaled_as_ditf_scales_it(size: tuple[int, int]) -> None:
    fitted = prepare_image(picture(*size), find_protocol("ditf-spair"))
    scale = 640 / max(size)
    expected = picture(*size).resize(tuple(round(side * scale / 16) * 16 for side in size))
    assert np.array_equal(pixels(fitted), np.asarray(expected))


def test_a_whole_image_stays_as_it_is() -> None:
    image = torch.rand(1, 3, 50, 70)
    assert torch.equal(prepare_image(image, find_protocol("plain")), image)


@given(
    size=st.tuples(st.integers(8, 900), st.integers(8, 900)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_points_go_into_the_square_and_back(
    size: tuple[int, int], place: tuple[float, float]
) -> None:
    point = torch.tensor([[place[0] * size[1], place[1] * size[0]]], dtype=torch.float64)
    inside = to_canvas(point, size, 840)
    assert bool((inside >= -1e-3).all() and (inside <= 841).all())
    assert torch.allclose(from_canvas(inside, size, 840), point, atol=1e-3)
    assert max(padded_size(size, 840)) == 840


def test_every_protocol_says_where_it_comes_from_and_has_its_own_name() -> None:
    for name, protocol in list_protocols().items():
        assert protocol.name == name and protocol.source and protocol.datasets


def test_every_protocol_is_told_apart_on_its_page() -> None:
    page = Path("docs/protocols.md").read_text("utf-8")
    assert [name for name in list_protocols() if f"`{name}`" not in page] == []


def test_an_unknown_name_or_a_wrong_number_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="did you mean 'ditf-spair'"):
        find_protocol("ditf-spare")
    with pytest.raises(InvalidArgumentError, match="side must be 8 or more"):
        Fit(kind="pad")
    for wrong in ({"base": "canvas"}, {"canvas": 840}, {"fit": Fit(kind="pad", side=60)}):
        with pytest.raises(InvalidArgumentError, match="belong together"):
            Protocol(name="x", source="a test", **wrong)
    with pytest.raises(InvalidArgumentError, match="compat must be one of"):
        Protocol(name="x", source="a test", compat=frozenset({"bug"}))
    for values in ((), (0,), (-1, 3), (float("nan"),), (float("inf"),)):
        for name in ("alphas", "corner_thresholds"):
            with pytest.raises(InvalidArgumentError, match=name):
                Protocol(name="x", source="a test", **{name: values})
