"""Files are read upright with all their bits, and refused with one clear error."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mutations import mutate
from PIL import Image, ImageOps, features

from kornia_ditf.errors import ImageError, MissingExtraError
from kornia_ditf.preprocess import as_image
from kornia_ditf.utils.images import MAX_PIXELS, read_image, read_size

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
        ("text.jpg", b"Once upon a time there was a text.\n" * 20, "not an image"),
        ("nul.png", b"\0" * 4000, "not an image"),
        ("huge.png", oversized_png(), "pixels"),
        ("animated.gif", frames("GIF"), "several frames"),
        ("animated.webp", frames("WEBP"), "several frames"),
        ("animated.png", frames("PNG"), "several frames"),
        ("pages.tif", frames("TIFF"), "several frames"),
        (
            "script.eps",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n",
            "a PostScript document",
        ),
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
    [
        ("missing.png", "no such file"),
        (".", "folder"),
        ("a\0b", "no such file|null"),
        ("n" * 300, "File name too long$"),
    ],
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


# What the header of a file says


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


def test_heic_without_its_library_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kornia-ditf\[heic\]'"):
        read_image(tmp_path / "photo.heic")


@pytest.mark.parametrize("suffix", ["avif", "jp2"])
def test_a_pillow_without_a_format_is_named_and_not_the_file(
    tmp_path: Path, colour: np.ndarray, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(colour).save(tmp_path / f"image.{suffix}")
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(ImageError, match="this Pillow was built without") as caught:
        read_image(tmp_path / f"image.{suffix}")
    assert "damaged" not in str(caught.value)


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


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path: Path, noise: np.ndarray) -> None:
    content = encode(noise, "progressive jpg")
    scan = content.rindex(b"\xff\xda")
    path = tmp_path / "scans.jpg"
    path.write_bytes(content[:scan] + content[scan:-2] * 200 + content[-2:])
    with pytest.raises(ImageError, match="more than 100 scans"):
        read_image(path)


def test_a_chain_of_pages_is_refused_at_its_second(tmp_path: Path) -> None:
    page, second = (struct.pack("<HI", 0, offset) for offset in (14, 14))
    path = tmp_path / "loop.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + page + second)
    with pytest.raises(ImageError):
        read_image(path)


def test_tiles_far_larger_than_the_image_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiles.tif"
    Image.new("RGB", (64, 48)).save(path)
    content = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", content, 4)[0] + 2
    # Width and length of tiles, their offsets and their byte counts, in place of those of strips.
    tiles = {278: (322, 30_000), 284: (323, 30_000), 273: (324, None), 279: (325, None)}
    for entry in range(start, start + 12 * struct.unpack_from("<H", content, start - 2)[0], 12):
        tag, value = tiles.get(struct.unpack_from("<H", content, entry)[0], (0, None))
        if tag:
            struct.pack_into("<H", content, entry, tag)
        if value:
            struct.pack_into("<HII", content, entry + 2, 4, 1, value)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="tiles are much larger"):
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


@pytest.mark.parametrize(
    "suffix", ["jpg", "mpo", "png", "tif", "webp", "avif", "jp2", "gif", "bmp", "ppm"]
)
def test_damaged_files_are_read_or_refused_by_one_kind_of_error(
    tmp_path: Path, noise: np.ndarray, suffix: str
) -> None:
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"damaged.{suffix}"
    Image.fromarray(noise[:40, :56]).save(whole, exif=with_orientation(6))
    content = whole.read_bytes()
    for seed in range(40):
        path.write_bytes(mutate(content, np.random.default_rng([seed, len(suffix)])))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                size, image = read_size(path), read_image(path)
            except ImageError:
                continue
        assert tuple(image.shape[2:]) == size
        assert bool(((image >= 0) & (image <= 1)).all())


def test_threads_that_read_leave_the_filters_of_warnings_as_they_were(
    tmp_path: Path, colour: np.ndarray
) -> None:
    Image.fromarray(colour).save(tmp_path / "image.jpg")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read_image(tmp_path / "image.jpg"), range(100)))
    assert list(warnings.filters) == before
