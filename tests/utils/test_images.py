"""Files are read upright with all their bits, and refused with one clear error."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from kornia_ditf.errors import ImageError
from kornia_ditf.preprocess import as_image
from kornia_ditf.utils.images import MAX_PIXELS, read_image

HEIGHT, WIDTH = 18, 26


@pytest.fixture
def colour() -> np.ndarray:
    """Smooth and without any symmetry, so that no orientation looks like another."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = [x * 9, y * 13, (x * 5 + y * 3) % 250]
    return np.stack(channels, -1).astype(np.uint8)


def unit(array: np.ndarray, white: float = 255) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32) / np.float32(white)).permute(2, 0, 1)[None]


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


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
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_every_orientation_comes_upright(
    tmp_path: Path, colour: np.ndarray, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(colour).save(path, exif=with_orientation(orientation))
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
    torch.testing.assert_close(read_image(deep), read_image(shallow), rtol=0, atol=1e-7)


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


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


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


# Refusing to read


def oversized_png() -> bytes:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    return start + png_chunk(b"IDAT", zlib.compress(b"\0" * 100)) + png_chunk(b"IEND", b"")


def frames(suffix: str) -> bytes:
    pictures = [Image.new("RGB", (16, 12), (value, 0, 0)) for value in (0, 100, 200)]
    stream = io.BytesIO()
    pictures[0].save(stream, suffix, save_all=True, append_images=pictures[1:])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.png", b"", "empty"),
        ("text.jpg", b"Once upon a time there was a text.\n" * 20, "no image"),
        ("nul.png", b"\0" * 4000, "no image"),
        ("huge.png", oversized_png(), "pixels"),
        ("animated.gif", frames("GIF"), "3 frames"),
        ("animated.webp", frames("WEBP"), "3 frames"),
        ("animated.png", frames("PNG"), "3 frames"),
        ("pages.tif", frames("TIFF"), "3 frames"),
        ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n", "no image"),
    ],
)
def test_a_file_that_holds_no_single_image_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(ImageError, match=problem) as caught:
        warnings.simplefilter("error")
        read_image(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("missing.png", "no such file"), (".", "folder"), ("a\0b", "no such file|null")],
)
def test_a_path_without_a_file_is_one_clear_error(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        read_image(tmp_path / name)


def test_the_header_is_enough_to_refuse_a_size(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 1  # Pillow only warns of this size
    Image.new("1", (side, side)).save(tmp_path / "large.png")
    with pytest.raises(ImageError, match=f"{side} x {side}"):
        read_image(tmp_path / "large.png")


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)


def encode(noise: np.ndarray, kind: str) -> bytes:
    if kind in ("16-bit png", "16-bit tif"):
        return cv2.imencode("." + kind.split()[1], noise.astype(np.uint16) * 257)[1].tobytes()
    options: dict[str, dict[str, Any]] = {
        "jpg": {"format": "JPEG"},
        "progressive jpg": {"format": "JPEG", "progressive": True},
        "jpg with preview": {"format": "JPEG", "exif": exif_with_preview()},
        "png": {"format": "PNG"},
        "interlaced png": {"format": "PNG", "interlace": 1},
        "tif": {"format": "TIFF"},
        "lzw tif": {"format": "TIFF", "compression": "tiff_lzw"},
        "bmp": {"format": "BMP"},
        "gif": {"format": "GIF"},
        "webp": {"format": "WEBP"},
        "ppm": {"format": "PPM"},
    }
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, **options[kind])
    return stream.getvalue()


def exif_with_preview() -> bytes:
    preview = io.BytesIO()
    Image.new("RGB", (16, 12)).save(preview, "JPEG")
    return b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + preview.getvalue()


@pytest.mark.parametrize("remaining", [0.3, 0.5, 0.97, "two bytes less"])
@pytest.mark.parametrize(
    "kind",
    [
        "jpg",
        "progressive jpg",
        "jpg with preview",
        "png",
        "16-bit png",
        "interlaced png",
        "tif",
        "lzw tif",
        "16-bit tif",
        "bmp",
        "webp",
        "ppm",
        "gif",
    ],
)
def test_a_file_that_is_cut_short_is_refused(
    tmp_path: Path, noise: np.ndarray, kind: str, remaining: float | str
) -> None:
    content = encode(noise, kind)
    whole = tmp_path / "whole"
    whole.write_bytes(content)
    read_image(whole)
    length = len(content) - 2 if isinstance(remaining, str) else int(len(content) * remaining)
    (tmp_path / "cut").write_bytes(content[:length])
    if kind == "gif" and isinstance(remaining, str):
        pytest.skip("only the trailer is gone, and the picture is whole")
    with warnings.catch_warnings(), pytest.raises(ImageError, match=r"cut"):
        warnings.simplefilter("error")
        read_image(tmp_path / "cut")


def test_a_damaged_png_is_refused(tmp_path: Path, noise: np.ndarray) -> None:
    content = bytearray(encode(noise, "png"))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "damaged.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"damaged\.png"):
        read_image(tmp_path / "damaged.png")


def test_odd_metadata_gives_no_warning(tmp_path: Path, colour: np.ndarray) -> None:
    path = tmp_path / "odd.jpg"
    Image.fromarray(colour).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0broken")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (1, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_picture_without_a_known_white_is_refused(mode: str) -> None:
    with pytest.raises(ImageError, match="white is not known"):
        as_image(Image.new(mode, (16, 16)))
