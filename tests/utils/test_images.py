"""Files are read upright with all their bits."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from image_files import HEIGHT, WIDTH, encode, png_chunk, unit, with_orientation
from PIL import Image, ImageOps

from kornia_ditf.errors import ImageError
from kornia_ditf.preprocess import as_image
from kornia_ditf.utils.images import read_image, read_size


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp"])
def test_lossless_files_give_their_pixels(tmp_path: Path, colour: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(colour).save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(path)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    torch.testing.assert_close(image, unit(colour), rtol=0, atol=0)
    torch.testing.assert_close(read_image(str(path)), image, rtol=0, atol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "suffix", ["jpg", "mpo", "png", "tif", "webp", "avif", "jp2", "gif", "bmp", "ppm"]
)
def test_every_orientation_comes_upright(
    tmp_path: Path, colour: np.ndarray, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(colour).save(path, exif=with_orientation(orientation))
    with Image.open(path) as opened:
        stored = np.asarray(opened.convert("RGB")) if suffix != "tif" else colour
    torch.testing.assert_close(read_image(path, upright=False), unit(stored), rtol=0, atol=0)
    assert read_size(path, upright=False) == (HEIGHT, WIDTH)
    assert read_size(path) == tuple(read_image(path).shape[2:])
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    torch.testing.assert_close(read_image(path), unit(expected), rtol=0, atol=0)
    with Image.open(path) as opened:
        torch.testing.assert_close(as_image(opened), unit(expected), rtol=0, atol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_every_orientation_of_16_bit_colour_comes_upright(
    tmp_path: Path, colour: np.ndarray, suffix: str, orientation: int
) -> None:
    deep = tmp_path / f"deep.{suffix}"
    shallow = tmp_path / f"shallow.{suffix}"
    Image.fromarray(colour).save(shallow, exif=with_orientation(orientation))
    cv2.imwrite(str(deep), colour[..., ::-1].astype(np.uint16) * 257)
    set_orientation(deep, orientation)
    for upright in (True, False):
        images = [read_image(path, upright=upright) for path in (deep, shallow)]
        torch.testing.assert_close(*images, rtol=0, atol=1e-7)
    assert read_size(deep) == read_size(shallow) == tuple(read_image(deep).shape[2:])


def set_orientation(path: Path, orientation: int) -> None:
    """Write the tag into a file of OpenCV's, which has none."""
    content = path.read_bytes()
    if path.suffix == ".png":
        exif = with_orientation(orientation).tobytes().removeprefix(b"Exif\0\0")
        path.write_bytes(content[:33] + png_chunk(b"eXIf", exif) + content[33:])
        return
    # A TIFF's directory is a list of 12-byte entries sorted by tag, moved here to the end.
    offset = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[offset : offset + 2])[0]
    start = offset + 2
    entries = [content[start + 12 * i : start + 12 * (i + 1)] for i in range(count)]
    entries = [entry for entry in entries if entry[:2] != struct.pack("<H", 274)]
    entries.append(struct.pack("<HHIHH", 274, 3, 1, orientation, 0))
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2])[0])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    content += b"\0" * (len(content) % 2)
    path.write_bytes(content[:4] + struct.pack("<I", len(content)) + content[8:] + directory)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_keep_their_steps(tmp_path: Path, suffix: str, channels: int) -> None:
    path = tmp_path / f"deep.{suffix}"
    # Neighbouring values that 8 bits cannot tell apart.
    array = (30000 + np.arange(HEIGHT * WIDTH * channels)).reshape(HEIGHT, WIDTH, channels)
    array = array.astype(np.uint16)
    if channels == 4:
        array[..., 3] = 65535
    cv2.imwrite(str(path), array)
    rgb = array[..., 2::-1] if channels > 1 else np.repeat(array, 3, 2)
    torch.testing.assert_close(read_image(path), unit(rgb, 65535), rtol=0, atol=1e-7)


def test_16_bit_transparency_lies_on_white(tmp_path: Path) -> None:
    array = np.zeros((HEIGHT, WIDTH, 4), np.uint16)
    array[..., 2] = 65535  # red, in OpenCV's order
    array[..., 3] = 16384
    cv2.imwrite(str(tmp_path / "deep.png"), array)
    expected = torch.tensor([1, 1 - 16384 / 65535, 1 - 16384 / 65535])
    torch.testing.assert_close(read_image(tmp_path / "deep.png")[0, :, 3, 4], expected)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, colour: np.ndarray, mode: str) -> None:
    grey = Image.fromarray(colour).convert(mode)
    grey.save(tmp_path / "grey.png")
    image = read_image(tmp_path / "grey.png")
    expected = np.asarray(grey.convert("L")) / np.float32(255)
    for channel in image[0]:
        np.testing.assert_allclose(channel, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(tmp_path: Path, colour: np.ndarray, mode: str) -> None:
    picture = Image.fromarray(colour).convert(mode)
    alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    picture.putalpha(Image.fromarray(alpha))
    picture.save(tmp_path / "image.png")
    opaque = unit(np.asarray(picture.convert("RGBA"))[..., :3])
    weight = torch.from_numpy(alpha / np.float32(255))
    image = read_image(tmp_path / "image.png")
    torch.testing.assert_close(image, opaque * weight + 1 - weight)
    assert (image[..., 0] == 1).all()


def test_a_palette_and_its_transparent_entry_are_resolved(tmp_path: Path) -> None:
    picture = Image.new("P", (WIDTH, HEIGHT), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "image.png", transparency=0)
    picture.save(tmp_path / "image.gif", transparency=0)
    for suffix in ("png", "gif"):
        image = read_image(tmp_path / f"image.{suffix}")
        assert image[0, :, 0, 0].tolist() == [1, 1, 1]
        torch.testing.assert_close(image[0, :, 5, 5] * 255, torch.tensor([200.0, 100, 50]))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("rgb", [(255, 255, 255), (230, 30, 40), (0, 0, 0)])
def test_cmyk_keeps_its_colours(tmp_path: Path, suffix: str, rgb: tuple[int, int, int]) -> None:
    # Pillow writes CMYK JPEG inverted with an Adobe marker, as Photoshop does.
    Image.new("RGB", (WIDTH, HEIGHT), rgb).convert("CMYK").save(tmp_path / f"image.{suffix}")
    colour = read_image(tmp_path / f"image.{suffix}")[0, :, 9, 9] * 255
    assert (colour - torch.tensor(rgb)).abs().max() < 3


def test_a_photograph_with_an_embedded_preview_gives_the_photograph(
    tmp_path: Path, colour: np.ndarray
) -> None:
    path = tmp_path / "telephone.jpg"
    preview = Image.new("RGB", (16, 12))
    Image.fromarray(colour).save(path, "MPO", save_all=True, append_images=[preview])
    with Image.open(path) as opened:
        assert opened.format == "MPO" and opened.n_frames == 2
    assert read_image(path).shape == (1, 3, HEIGHT, WIDTH)


def test_odd_metadata_gives_no_warning(tmp_path: Path, colour: np.ndarray) -> None:
    path = tmp_path / "odd.jpg"
    Image.fromarray(colour).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0broken")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (1, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_heic_photograph_comes_upright(
    tmp_path: Path, colour: np.ndarray, orientation: int
) -> None:
    heif = pytest.importorskip("pillow_heif").from_pillow(Image.fromarray(colour))
    heif.info["exif"] = with_orientation(orientation).tobytes()
    heif.save(str(tmp_path / "image.heic"), quality=-1)
    image = read_image(tmp_path / "image.heic")
    turned = ImageOps.exif_transpose(Image.fromarray(colour))
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned))
    assert tuple(image.shape[2:]) == read_size(tmp_path / "image.heic") == expected.shape[:2]
    assert (image - unit(expected)).abs().mean() < 0.02


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_orientation_of_a_png_is_found_without_its_pixels(
    tmp_path: Path, colour: np.ndarray, place: str
) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(colour).save(path)
    content = path.read_bytes()
    exif = png_chunk(b"eXIf", with_orientation(6).tobytes().removeprefix(b"Exif\0\0"))
    position = 33 if place == "before" else len(content) - 12
    path.write_bytes(content[:position] + exif + content[position:])
    assert tuple(read_image(path).shape[2:]) == read_size(path) == (WIDTH, HEIGHT)
    # Pixels that cannot be decoded do not matter to the size.
    path.write_bytes(path.read_bytes().replace(b"IDAT\x78", b"IDAT\0"))
    assert read_size(path) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("stray", [b"\0", b"\0\0", b"\x12\x34", b"\x0f" * 9, b"\xff\0", b"\xff"])
def test_stray_bytes_between_jpeg_segments_are_passed_over(
    tmp_path: Path, noise: np.ndarray, stray: bytes
) -> None:
    path, content = tmp_path / "stray.jpg", encode(noise, "progressive jpg")
    segments = [4 + int.from_bytes(content[4:6], "big")]
    while content[segments[-1] + 1] != 0xDA:
        segments.append(segments[-1] + 2 + int.from_bytes(content[segments[-1] + 2 :][:2], "big"))
    for position in segments:
        path.write_bytes(content[:position] + stray + content[position:])
        with Image.open(path) as opened:
            expected = np.asarray(opened)
        torch.testing.assert_close(read_image(path), unit(expected), rtol=0, atol=0)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(ImageError, match="cut short"):
            read_image(path)


def test_reading_holds_little_beside_the_result(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.new("RGB", (1600, 1200), (9, 99, 199)).save(path)
    tracemalloc.start()
    image = read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Arrays of NumPy; Pillow's four bytes per pixel are not traced.
    assert peak < image.numel() * 4 + (1 << 18) * 30


def test_threads_that_read_leave_the_filters_of_warnings_as_they_were(
    tmp_path: Path, colour: np.ndarray
) -> None:
    Image.fromarray(colour).save(tmp_path / "image.jpg")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read_image(tmp_path / "image.jpg"), range(100)))
    assert list(warnings.filters) == before
