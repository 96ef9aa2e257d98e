"""Files that hold no single image, or a damaged one, are refused with one clear error."""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import encode, png_chunk, with_orientation
from mutations import mutate
from PIL import Image, features

from kornia_ditf.errors import ImageError, MissingExtraError
from kornia_ditf.preprocess import as_image
from kornia_ditf.utils.images import MAX_PIXELS, read_image, read_size


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
            "not an image.*expected a JPEG",
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


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_picture_without_a_known_white_is_refused(mode: str) -> None:
    with pytest.raises(ImageError, match="no known white level"):
        as_image(Image.new(mode, (16, 16)))


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
