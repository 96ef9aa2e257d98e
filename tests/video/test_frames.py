"""Frames of video files, read by either library."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kornia_ditf import read_frames
from kornia_ditf.errors import ImageError
from kornia_ditf.video import frames

av: Any = pytest.importorskip("av")
TIMES = (0, 40, 120, 130, 400)  # milliseconds: a variable rate


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a lossless clip of odd sides whose frames follow at a variable rate."""
    path = tmp_path_factory.mktemp("video") / "clip.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 51, 37, "bgr0"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(TIMES):
            picture = av.VideoFrame.from_ndarray(pixels(number).numpy(), format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            for packet in stream.encode(picture.reformat(format="bgr0")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def pixels(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (37, 51, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture(params=["pyav", "opencv"])
def _reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_has_pyav", lambda: request.param == "pyav")


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
