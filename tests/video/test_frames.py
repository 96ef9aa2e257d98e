"""Frames of video files, read by either library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kornia_ditf import read_frames
from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.video import frames

pytest.importorskip("av")

from clips import pixels, reader, write_clip, write_sound

TIMES = (0, 40, 120, 130, 400)  # milliseconds: a variable rate


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a lossless clip of odd sides whose frames follow at a variable rate."""
    return write_clip(tmp_path_factory.mktemp("video") / "clip.mkv", TIMES)


@pytest.fixture(params=["pyav", "opencv"])
def _reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "find_spec", lambda name: name if request.param == "pyav" else None)


@pytest.mark.usefixtures("_reader")
def test_every_frame_of_a_variable_rate_comes_once_with_its_pixels_and_time(clip: Path) -> None:
    found = list(read_frames(clip))
    assert len(found) == len(TIMES)
    for number, (frame, time) in enumerate(zip(found, TIMES, strict=True)):
        assert frame.image.shape == (1, 3, 37, 51)
        assert torch.equal(frame.image[0].permute(1, 2, 0) * 255, pixels(number).float())
        assert frame.seconds == pytest.approx(time / 1000, abs=2e-3)


@pytest.mark.usefixtures("_reader")
def test_frames_are_decoded_as_they_are_asked_for(clip: Path) -> None:
    found = read_frames(clip)
    assert isinstance(found, Iterator)
    assert torch.equal(next(found).image[0].permute(1, 2, 0) * 255, pixels(0).float())
    found.close()  # type: ignore[attr-defined] - the file is closed with it


@pytest.mark.usefixtures("_reader")
@pytest.mark.parametrize("content", [b"", b"no video at all", None])
def test_what_is_no_video_is_refused_by_name(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "wrong.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match="wrong.mp4"):
        list(read_frames(path))


@pytest.mark.usefixtures("_reader")
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"every": 2}, [0, 2, 4]),
        ({"start": 0.03}, [1, 2, 3, 4]),
        ({"end": 0.13}, [0, 1, 2]),
        ({"frames": 2, "every": 3, "start": 0.04}, [1, 4]),
        ({"frames": 1}, [0]),
    ],
)
def test_frames_are_chosen_by_number_and_time(
    chosen: dict[str, Any], expected: list[int], clip: Path
) -> None:
    found = list(read_frames(clip, **chosen))
    assert [frame.number for frame in found] == expected
    for frame in found:
        assert torch.equal(frame.image[0].permute(1, 2, 0) * 255, pixels(frame.number).float())
        assert frame.seconds == pytest.approx(TIMES[frame.number] / 1000, abs=2e-3)


def test_a_choice_of_no_frame_says_where_the_video_ends(clip: Path) -> None:
    with pytest.raises(ImageError, match=r"no frame from 5 s on; its frames end at 0\.40 s"):
        list(read_frames(clip, start=5))
    wrong: tuple[dict[str, Any], ...] = (
        {"every": 0},
        {"frames": 0},
        {"start": 2, "end": 1},
        {"start": -1},
        {"start": float("nan")},
    )
    for each in wrong:
        with pytest.raises(InvalidArgumentError):
            read_frames(clip, **each)


@pytest.mark.usefixtures("_reader")
@pytest.mark.parametrize("container", ["mkv", "avi"])
def test_a_clip_that_was_cut_short_gives_its_frames_and_then_says_so(
    container: str, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / f"cut.{container}", range(0, 800, 40), "mpeg4", "yuv420p")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    found = read_frames(path)
    assert next(found).number == 0
    with pytest.raises(ImageError, match=r"damaged or cut short after \d+ frames"):
        list(found)
    assert len(list(read_frames(path, frames=3))) == 3  # what comes before is there


def test_a_damaged_frame_is_not_given(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "damaged.mkv", range(0, 400, 40), "mpeg4", "yuv420p")
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) * 6 // 10, 7):
        content[place] ^= 255
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"damaged"):
        list(read_frames(path))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_frames_are_upright(turn: int, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "turned.mp4", (0, 40), "mpeg4", "yuv420p", (32, 48))
    plain = next(read_frames(path)).image
    content = path.read_bytes()
    place = content.index(b"tkhd") + 4 + 40  # its matrix, after version, times, layer and volume
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    rows = (cosine, sine, 0, -sine, cosine, 0)
    matrix = b"".join((value * 65536).to_bytes(4, "big", signed=True) for value in rows)
    path.write_bytes(content[:place] + matrix + content[place + 24 :])
    assert torch.equal(next(read_frames(path)).image, torch.rot90(plain, -turn // 90, (2, 3)))


def test_a_file_of_sound_and_an_unknown_codec_are_told_what_they_are(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "sound.mp4")
    with pytest.raises(ImageError, match="holds no video, only audio"):
        list(read_frames(sound))
    path = write_clip(tmp_path / "unknown.avi", (0, 40), "mjpeg", "yuvj420p")
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZ9Q"))
    with pytest.raises(ImageError, match="FFmpeg does not support; convert"):
        list(read_frames(path))


def test_without_pyav_what_opencv_cannot_decode_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "wrong.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(ImageError, match=r"pip install 'kornia-ditf\[video\]'"):
        list(read_frames(path))


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "album.mp4"
    with reader.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=1)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuvj420p"
        stream.disposition = reader.stream.Disposition.attached_pic
        picture = reader.VideoFrame.from_ndarray(pixels(0, (32, 32)).numpy(), format="rgb24")
        for packet in (*stream.encode(picture.reformat(format="yuvj420p")), *stream.encode()):
            file.mux(packet)
    with pytest.raises(ImageError, match="holds no video"):
        list(read_frames(path))
