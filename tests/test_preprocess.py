"""All that holds an image becomes one tensor; fitting and the Frame agree about every pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import colour_image, unit
from PIL import Image

from kornia_ditf.errors import DiTFError, ImageError, InvalidArgumentError
from kornia_ditf.preprocess import as_image, fit_image, read_image, squash_image
from kornia_ditf.types import Frame


@pytest.fixture
def colour() -> np.ndarray:
    return colour_image()


# Values instead of files


def test_arrays_pictures_and_tensors_of_one_image_are_equal(colour: np.ndarray) -> None:
    expected = unit(colour)
    floats = colour.astype(np.float64) / 255
    for value in (
        colour,
        colour[::-1][::-1],
        colour.astype(np.uint16) * 257,
        colour.astype(">u2") * 257,
        floats,
        floats.astype(np.float32),
        Image.fromarray(colour),
        expected,
        expected[0],
    ):
        torch.testing.assert_close(as_image(value), expected, rtol=0, atol=1e-6)


def test_grey_arrays_and_tensors_become_three_channels() -> None:
    grey = np.arange(120, dtype=np.uint8).reshape(10, 12)
    expected = torch.from_numpy(grey / np.float32(255)).expand(1, 3, 10, 12)
    for value in (grey, grey[..., None], expected[:, :1], expected[0, :1], Image.fromarray(grey)):
        torch.testing.assert_close(as_image(value), expected)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    torch.testing.assert_close(as_image(deep), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_tensor_keeps_its_dtype_and_its_gradient(dtype: torch.dtype) -> None:
    image = torch.rand(2, 3, 8, 9).to(dtype).requires_grad_()
    result = as_image(image)
    assert result.dtype == dtype
    result.sum().backward()
    assert image.grad is not None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.rand(4, 16, 16), "shape"),
        (torch.rand(1, 4, 16, 16), "fourth channel"),
        (torch.rand(16, 16), "shape"),
        (torch.rand(1, 1, 3, 16, 16), "shape"),
        (torch.rand(16, 16, 3), "channels first"),
        (torch.rand(0, 3, 16, 16), "shape"),
        (torch.rand(1, 3, 0, 16), "shape"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), "uint8: divide by 255"),
        (torch.zeros(3, 16, 16, dtype=torch.int64), "int64"),
        (torch.zeros(3, 16, 16, dtype=torch.complex64), "complex64"),
        (torch.full((3, 16, 16), torch.nan), "NaN"),
        (torch.full((3, 16, 16), torch.inf), "NaN or infinity"),
        (torch.full((3, 16, 16), 255.0), "divide by 255"),
        (torch.full((3, 16, 16), -0.5), r"\(image \+ 1\) / 2"),
        (torch.full((3, 16, 16), 1.01), r"\[0, 1\]"),
        (np.zeros((16, 16, 4), np.uint8), "fourth channel"),
        (np.zeros((3, 16, 16), np.uint8), "channels last"),
        (np.zeros((2, 16, 16, 3), np.uint8), "shape"),
        (np.zeros((0, 16, 3), np.uint8), "shape"),
        (np.zeros((16, 16, 3), np.int32), "int32"),
        (np.zeros((16, 16, 3), bool), "bool"),
        (np.full((16, 16, 3), np.nan), "NaN"),
        (np.full((16, 16, 3), 200.0), "divide by 255"),
        ([1, 2, 3], "list"),
        (None, "NoneType"),
        (7, "int"),
        (b"image.png", "bytes"),
    ],
)
def test_a_value_that_is_no_image_is_named_with_what_was_expected(value: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        as_image(value)


def test_values_just_beyond_the_range_are_taken_as_rounding() -> None:
    image = torch.tensor([-9e-4, 1 + 9e-4]).expand(1, 3, 8, 2)
    torch.testing.assert_close(as_image(image), image)


# Fitting

sides = st.integers(8, 150)
multiples = st.sampled_from([8, 14, 16, 32])
Size = tuple[int, int]


def fitted_frame(size: Size, long_side: int | None, multiple: int) -> Frame | None:
    """Fit without pixels, or None where that is refused."""
    try:
        # One pixel stands for all of them, so that a large image costs nothing.
        return fit_image(torch.zeros(1, 3, 1, 1).expand(1, 3, *size), long_side, multiple)[1]
    except ImageError:
        return None


@given(sides, sides, st.none() | st.integers(32, 130), multiples)
def test_sides_are_multiples_and_the_aspect_moves_by_the_rounding_only(
    height: int, width: int, long_side: int | None, multiple: int
) -> None:
    frame = fitted_frame((height, width), long_side, multiple)
    longest = max(height, width)
    if frame is None:
        # At least the long side before its rounding is then too short for one token.
        target = longest if long_side is None else long_side - multiple / 2
        assert min(height, width) * target / longest < multiple
        return
    model_height, model_width = frame.model_size
    assert frame.image_size == (height, width)
    assert model_height % multiple == 0 and model_width % multiple == 0
    wanted = longest if long_side is None else max(frame.model_size)
    if long_side is not None:
        assert abs(wanted - long_side) <= multiple / 2
    assert abs(model_height - height * wanted / longest) <= multiple / 2
    assert abs(model_width - width * wanted / longest) <= multiple / 2


@given(
    st.integers(8, 4001),
    st.integers(8, 4001),
    st.integers(32, 2000),
    multiples,
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_points_go_to_the_model_and_back_within_a_thousandth_of_a_pixel(
    height: int, width: int, long_side: int, multiple: int, x: float, y: float
) -> None:
    frame = Frame((height, width), (long_side // multiple * multiple, 7 * multiple))
    points = torch.tensor([[x * width - 0.5, y * height - 0.5]], dtype=torch.float32)
    back = frame.to_image(frame.to_model(points))
    assert (back - points).abs().max() < 1e-3


@pytest.mark.parametrize("size", [(61, 83), (83, 61), (120, 77), (60, 200)])
@pytest.mark.parametrize("long_side", [48, 160, None])
def test_a_ramp_lies_after_fitting_where_the_frame_says(size: Size, long_side: int | None) -> None:
    height, width = size
    x = (torch.arange(width) + 0.5).expand(height, width)
    y = (torch.arange(height) + 0.5)[:, None].expand(height, width)
    ramp = torch.stack([x / width, y / height, torch.zeros(size)])[None]
    fitted, frame = fit_image(ramp, long_side, 8)
    rows, columns = frame.model_size
    grid_y, grid_x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    points = frame.to_image(torch.stack([grid_x, grid_y], -1).float())
    inside = (slice(4, -4), slice(4, -4))  # the kernel's reach meets the border outside of it
    seen_x = fitted[0, 0] * width - 0.5
    seen_y = fitted[0, 1] * height - 0.5
    assert (seen_x - points[..., 0])[inside].abs().max() < 0.05
    assert (seen_y - points[..., 1])[inside].abs().max() < 0.05


def test_a_ramp_lies_after_squashing_where_the_frame_says() -> None:
    ramp = torch.linspace(0, 1, 90).expand(1, 3, 60, 90)
    squashed, frame = squash_image(ramp, (60, 30))
    assert frame == Frame(image_size=(60, 90), model_size=(60, 30))
    points = torch.stack([torch.arange(2.0, 28), torch.full((26,), 7.0)], -1)
    x = frame.to_image(points)[:, 0]
    torch.testing.assert_close(squashed[0, 0, 7, 2:28], x / 89, rtol=0, atol=1e-5)


def test_squashing_to_an_images_own_size_leaves_it_alone() -> None:
    image = torch.rand(1, 3, 32, 48)
    assert squash_image(image, (32, 48))[0] is image


@pytest.mark.parametrize("size", [(30, 32), (32,), 32, (0, 32), (32, 1.5), (2**15, 2**15)])
def test_a_size_to_squash_to_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="size"):
        squash_image(torch.rand(1, 3, 32, 48), size, multiple=16)


def test_fine_stripes_become_grey_and_not_a_coarser_pattern() -> None:
    stripes = (torch.arange(512) % 2).float().expand(1, 3, 256, 512)
    fitted, _ = fit_image(stripes, 112, 16)
    assert (fitted[..., 4:-4] - 0.5).abs().max() < 0.02


def test_an_image_that_fits_comes_back_as_it_is() -> None:
    image = torch.rand(2, 3, 32, 48)
    for long_side in (48, None):
        fitted, frame = fit_image(image, long_side, 16)
        assert fitted is image
        assert frame == Frame((32, 48), (32, 48))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_fitting_keeps_the_dtype_and_computes_in_float32(dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 20, 30).to(dtype)
    fitted, _ = fit_image(image, 64, 16)
    expected, _ = fit_image(image.float(), 64, 16)
    assert fitted.dtype == dtype
    torch.testing.assert_close(fitted, expected.to(dtype), rtol=0, atol=0)
    assert fitted.min() >= 0 and fitted.max() <= 1


def test_gradients_flow_through_fitting() -> None:
    image = torch.rand(1, 3, 20, 30).mul(0.5).add(0.25).requires_grad_()
    fitted, _ = fit_image(image, 64, 16)
    fitted.mean().backward()
    assert image.grad is not None
    # The mean of the fitted image is nearly the mean of the image: each pixel counts alike.
    torch.testing.assert_close(image.grad.sum(), torch.tensor(1.0))
    assert (image.grad > 0).all()


def test_a_batch_is_fitted_image_by_image() -> None:
    images = torch.rand(3, 3, 21, 34)
    fitted, _ = fit_image(images, 64, 16)
    for index in range(3):
        alone, _ = fit_image(images[index : index + 1], 64, 16)
        torch.testing.assert_close(fitted[index : index + 1], alone)


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        ((1, 1), "1 x 1 pixels is too small"),
        ((1, 5000), "5000 x 1 pixels is too small"),
        ((5000, 1), "1 x 5000 pixels is too small"),
        ((7, 100), "at least 8"),
        ((10, 5000), "below one token"),
        ((5000, 10), "below one token"),
    ],
)
def test_an_image_too_small_or_too_thin_is_refused(size: Size, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        fit_image(torch.zeros(1, 3, *size), 512, 16)


@pytest.mark.parametrize(
    ("long_side", "multiple"),
    [(0, 16), (-1, 16), (512.0, 16), (True, 16), (15, 16), (512, 0), (512, 1.5), ("512", 16)],
)
def test_a_size_that_is_no_positive_integer_is_refused(long_side: Any, multiple: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="long_side|multiple"):
        fit_image(torch.zeros(1, 3, 32, 32), long_side, multiple)


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(3, 32, 32),
        torch.zeros(1, 4, 32, 32),
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
    ],
)
def test_fitting_takes_a_batch_of_float_images_only(image: torch.Tensor) -> None:
    with pytest.raises(InvalidArgumentError, match="as_image"):
        fit_image(image, 32, 16)


@pytest.mark.parametrize("call", [read_image, as_image])
def test_every_refusal_is_one_of_our_errors(call: Callable[[str], torch.Tensor]) -> None:
    with pytest.raises(DiTFError):
        call("there/is/no/such.png")
