"""`kornia-ditf extract`."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import Result

import kornia_ditf
from kornia_ditf.descriptor import DiTF
from kornia_ditf.utils import files

Run = Callable[..., Result]
RunJson = Callable[..., Any]
SMALL = ("--long-side", 48)


def metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return {name: json.loads(value) for name, value in file.metadata().items()}


def test_files_hold_what_the_library_computes_and_how(
    run_json: RunJson, images: list[Path], massive_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    done = run_json("extract", *images, "-b", massive_model, *SMALL, "--out", out)
    assert done["written"] == [str(out / f"{name}.safetensors") for name in "abc"]
    ditf = kornia_ditf.create_descriptor(massive_model, long_side=48, massive_channels=(7, 19))
    for path in images:
        stored = load_file(out / f"{path.stem}.safetensors")
        torch.testing.assert_close(stored["descriptors"], ditf(path).data[0])
    about = metadata(out / "a.safetensors")
    assert about["image"] == "a.png" and about["image_size"] == [48, 64]
    assert about["grid"] == [9, 12] and about["massive_channels"] == {"2": [7, 19]}
    assert about["identity"] == ditf.backbone.identity


def test_several_blocks_have_a_key_each(
    run: Run, images: list[Path], model: Path, tmp_path: Path
) -> None:
    blocks = ("--block", 3, "--block", 1)
    result = run("extract", images[0], "-b", model, *SMALL, *blocks, "--half", "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    stored = load_file(tmp_path / "a.safetensors")
    assert set(stored) == {"block_1", "block_3"}
    assert stored["block_1"].dtype == torch.float16
    ditf = kornia_ditf.create_descriptor(model, long_side=48, block=1, massive_channels=())
    expected = ditf(images[0]).data[0]
    torch.testing.assert_close(stored["block_1"].float(), expected, atol=1e-2, rtol=1e-2)


def test_the_same_again_is_skipped_and_other_settings_are_kept(
    run: Run, run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    command = ("extract", *images, "-b", model, *SMALL, "--out", tmp_path / "out")
    assert len(run_json(*command)["written"]) == 3
    assert len(run_json(*command)["skipped"]) == 3
    assert len(run_json(*command, "--overwrite")["written"]) == 3
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    other = run(*command, "--seed", 1)
    assert other.exit_code == 5
    assert other.stderr.count("other settings (seed); add --overwrite") == 3
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert len(run_json(*command, "--seed", 1, "--overwrite")["written"]) == 3
    shutil.copy(images[1], images[0])
    assert len(run_json(*command, "--seed", 1)["written"]) == 1


def test_equal_images_give_equal_bytes_wherever_they_lie(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "a.png"
    copy.parent.mkdir()
    shutil.copy(images[0], copy)
    contents = set()
    for number, image in enumerate((images[0], copy, images[0])):
        out = tmp_path / str(number)
        run_json("extract", image, "-b", model, *SMALL, "--out", out)
        contents.add((out / "a.safetensors").read_bytes())
    assert len(contents) == 1
    assert str(tmp_path).encode() not in contents.pop()


def test_names_as_long_as_the_file_system_allows_get_a_file_each(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    named = [tmp_path / f"{'n' * 240}{end}.png" for end in ("n" * 10, "n" * 9 + "m", "\u00fc" * 5)]
    for path in named:
        shutil.copy(images[0], path)
    done = run_json("extract", *named, "-b", model, *SMALL, "--out", tmp_path / "out")
    assert len(set(done["written"])) == len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_whole_files_only(
    number: signal.Signals, images: list[Path], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "kornia_ditf", "extract", *map(str, images)]
    slow = ["-b", str(model), "--timestep", "500", "--ensemble", "20000", "--out", str(out)]
    process = subprocess.Popen([*words, *slow], stderr=subprocess.PIPE, text=True)
    while not out.is_dir():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 128 + number
    assert said.startswith("error: interrupted") and said.count("\n") == 1
    assert not list(out.iterdir())


def test_a_bad_image_is_reported_and_the_rest_go_on(
    run: Run, images: list[Path], model: Path, tmp_path: Path
) -> None:
    images[1].write_bytes(b"")
    missing = tmp_path / "missing.png"
    result = run("extract", *images, missing, "-b", model, *SMALL, "--out", tmp_path / "out")
    assert result.exit_code == 3 and result.stderr.count("\n") == 2
    assert str(images[1]) in result.stderr and str(missing) in result.stderr
    assert "2 of 4 images" in result.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a.safetensors", "c.safetensors"}


def test_an_interruption_leaves_whole_files_and_the_command_goes_on(
    run: Run,
    run_json: RunJson,
    images: list[Path],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    command = ("extract", *images, "-b", model, *SMALL, "--out", out)
    save = files.save_sealed

    def save_two(path: Path, tensors: Any, about: Any) -> None:
        if about["image"] == "c.png":
            Path(path).write_bytes(b"half")
            raise KeyboardInterrupt
        save(path, tensors, about)

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_sealed", save_two)
        result = run(*command)
    assert result.exit_code == 130
    assert result.stderr.startswith("error: interrupted with 2 of 3 images done")
    assert {path.name for path in out.iterdir()} == {"a.safetensors", "b.safetensors"}
    done = run_json(*command)
    assert (len(done["skipped"]), len(done["written"])) == (2, 1)


def test_images_of_one_name_do_not_overwrite_each_other(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "a.png"
    other.parent.mkdir()
    shutil.copy(images[1], other)
    command = ("extract", "-b", model, *SMALL, "--out", tmp_path / "out")
    together = run_json(*command, images[0], other)["written"]
    assert len(set(together)) == 2
    assert {metadata(Path(path))["image"] for path in together} == {"a.png"}
    first = run_json(*command, images[0])["written"]
    later = run_json(*command, other)
    assert not set(first) & {*later["written"], *later["skipped"]}


def test_a_file_that_is_not_ours_is_left_alone(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "a.safetensors"
    other.write_bytes(b"weights of something")
    done = run_json("extract", images[0], "-b", model, *SMALL, "--out", tmp_path, "--overwrite")
    assert [Path(path).name[:2] for path in done["written"]] == ["a-"]
    assert other.read_bytes() == b"weights of something"


def test_an_image_named_twice_is_done_once(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    twice = (images[0], images[0].parent / "." / "a.png")
    done = run_json("extract", *twice, "-b", model, *SMALL, "--out", tmp_path / "out")
    assert len(done["written"]) == 1


def test_values_beyond_float16_are_not_stored_in_it(
    run: Run, images: list[Path], massive_model: Path, tmp_path: Path
) -> None:
    def enlarge(path: Path) -> None:
        from safetensors.torch import save_file

        tensors = load_file(path)
        if "patch_embed.proj.bias" in tensors:
            tensors["patch_embed.proj.bias"][7] = 1e6
            save_file(tensors, path, {"format": "pt"})

    for path in massive_model.glob("transformer/*.safetensors"):
        enlarge(path)
    options = ("-b", massive_model, *SMALL, "--treatment", "raw", "--half")
    result = run("extract", images[0], *options, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "store float32 or int8" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(run: Run, images: list[Path]) -> None:
    result = run("extract", images[0], "--out", images[1])
    assert result.exit_code == 5
    assert result.stderr.count("\n") == 1 and str(images[1]) in result.stderr


def test_images_of_one_size_share_forward_passes_and_files_are_the_same(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    named = [tmp_path / f"{number}.png" for number in range(5)]
    for path in named:
        shutil.copy(images[2], path)
    sizes: list[int] = []
    whole = DiTF.prepared_taps

    def counted(self: DiTF, some: Any, *rest: Any) -> Any:
        sizes.append(len(some))
        return whole(self, some, *rest)

    stored = []
    for batch in (1, 4):
        out = tmp_path / str(batch)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DiTF, "prepared_taps", counted)
            command = ("extract", *images, *named, "-b", model, *SMALL, "--timestep", 300)
            done = run_json(*command, "--batch", batch, "--out", out)
        assert [Path(path).stem for path in done["written"]] == [*"abc01234"]
        stored.append([load_file(path)["descriptors"] for path in done["written"]])
    assert sizes[:8] == [1] * 8 and sorted(sizes[8:]) == [1, 1, 2, 4]
    for one, together in zip(*stored, strict=True):
        torch.testing.assert_close(one, together, rtol=0, atol=1e-5)


def test_a_disk_that_is_full_ends_the_command_at_once(
    run: Run, images: list[Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "save_sealed", full)
    result = run("extract", *images, "-b", model, *SMALL, "--out", tmp_path / "out")
    assert result.exit_code == 5 and "No space left" in result.stderr
    assert result.stderr.count("\n") == 1 and not list((tmp_path / "out").iterdir())


def test_upsampled_descriptors_are_stored_and_others_of_another_grid_are_kept(
    run: Run, run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    settings = (images[0], "-b", model, *SMALL, "--out", tmp_path)
    done = run_json("extract", *settings, "--upsample", "joint_bilateral(2)")
    assert done["upsample"] == "joint_bilateral(2, 0.3)" and done["massive_channels"] != {}
    about = metadata(tmp_path / "a.safetensors")
    assert about["grid"] == [18, 24] and about["upsample"] == done["upsample"]
    again = run("extract", *settings)
    assert again.exit_code and "made with other settings (upsample)" in again.stderr
    twice = run("extract", *settings, "--upsample", "bilinear", "--block", 1, "--block", 2)
    assert "--upsample describes one block" in twice.stderr
    wrong = run("match", images[0], images[1], "--upsample", "bilinaer(2)")
    assert "did you mean 'bilinear'" in wrong.stderr
