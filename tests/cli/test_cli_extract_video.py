"""`kornia-ditf extract` on videos: a file per frame. Video models are tested with the zoo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import Result

import kornia_ditf

pytest.importorskip("av")

from clips import write_clip, write_sound

Run = Callable[..., Result]
RunJson = Callable[..., Any]
TIMES = (0, 40, 120, 130, 400)
SMALL = ("--long-side", 48)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mkv", TIMES)


def metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return {name: json.loads(value) for name, value in file.metadata().items()}


def test_each_frame_has_a_file_that_holds_what_it_has_as_an_image(
    run_json: RunJson, clip: Path, images: list[Path], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run_json("extract", images[0], clip, "-b", model, *SMALL, "--out", out)
    names = ["a", *(f"clip-{number:06d}" for number in range(5))]
    assert done["written"] == [str(out / f"{name}.safetensors") for name in names]
    about = [metadata(Path(path)) for path in done["written"][1:]]
    assert [each["frame"] for each in about] == [0, 1, 2, 3, 4]
    assert [each["seconds"] for each in about] == [time / 1000 for time in TIMES]
    assert {each["image"] for each in about} == {"clip.mkv"} and "frame" not in metadata(
        Path(done["written"][0])
    )
    assert about[0]["image_size"] == [37, 51]
    channels = tuple(about[0]["massive_channels"]["2"])
    ditf = kornia_ditf.create_descriptor(model, long_side=48, massive_channels=channels)
    for path, frame in zip(done["written"][1:], kornia_ditf.read_frames(clip), strict=True):
        expected = ditf(frame.image).data[0]
        torch.testing.assert_close(load_file(path)["descriptors"], expected, rtol=0, atol=1e-5)


def test_chosen_frames_are_described_and_the_command_goes_on_where_it_stopped(
    run: Run, run_json: RunJson, clip: Path, model: Path, tmp_path: Path
) -> None:
    command = ("extract", clip, "-b", model, *SMALL, "--out", tmp_path / "out")
    chosen = run_json(*command, "--start", "0:00.04", "--every", 2)
    assert [Path(path).stem for path in chosen["written"]] == ["clip-000001", "clip-000003"]
    assert len(run_json(*command, "--end", 0.1, "--frames", 1)["written"]) == 1
    again = run_json(*command)
    assert (len(again["skipped"]), len(again["written"])) == (3, 2)
    other = run(*command, "--seed", 1)
    assert (other.exit_code, other.stderr.count("\n")) == (5, 1)
    assert "other settings (seed)" in other.stderr


def test_a_clip_cut_short_keeps_its_frames_and_is_reported(
    run: Run, images: list[Path], model: Path, tmp_path: Path
) -> None:
    cut = write_clip(tmp_path / "cut.mkv", range(0, 800, 40), "mpeg4", "yuv420p")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
    sound, one = write_sound(tmp_path / "sound.mp4"), write_clip(tmp_path / "one.mkv", (0,))
    files = (sound, cut, one, images[0], tmp_path / "absent.mp4")
    out = tmp_path / "out"
    result = run("extract", *files, "-b", model, *SMALL, "--out", out)
    assert result.exit_code == 3
    said = result.stderr.splitlines()
    assert len(said) == 3 and "only audio" in said[0] and "cut short" in said[1]
    assert "no such video" in said[2]
    written = {path.stem for path in out.iterdir()}
    assert {"one-000000", "a", "cut-000000"} < written
    assert f"{len(written)} frames and images" in result.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--window", 4), "--window is of videos that a video model sees as clips"),
        (("--share",), "nano sees each frame alone"),
        (("--start", "soon"), "expected seconds, or MM:SS"),
        (("--start", 2, "--end", 1), "start < end"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: tuple[object, ...], told: str, run: Run, clip: Path, tmp_path: Path
) -> None:
    result = run("extract", clip, *SMALL, *options, "--out", tmp_path / "out")
    assert result.exit_code == 2 and told in " ".join(result.stderr.replace("│", " ").split())


def test_choices_of_frames_need_a_video(run: Run, images: list[Path], tmp_path: Path) -> None:
    result = run("extract", *images, "--every", 2, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "--every selects frames of videos" in result.stderr


def test_a_frame_of_a_video_is_matched_as_an_image(
    run: Run, run_json: RunJson, clip: Path, images: list[Path], model: Path
) -> None:
    command = ("match", "-b", model, *SMALL, "--search", "none")
    for frame in ("4", "0.2s"):
        found = run_json(*command, f"{clip}@{frame}", f"{clip}@4")
        assert found["images"]["a"]["size"] == [37, 51]
        assert min(found["scores"]) > 0.999
    for name, told in (
        (clip, "@12"),
        (f"{clip}@9", "frames 0 to 4"),
        (f"{clip}@1.5", "end with s"),
    ):
        result = run(*command, name, images[0])
        assert result.exit_code == 3 and told in result.stderr
