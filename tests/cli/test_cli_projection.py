"""`kornia-ditf projection`, and the option --projection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

import kornia_ditf
from kornia_ditf.descriptor import DiTF

Run = Callable[..., Result]
RunJson = Callable[..., Any]
SMALL = ("--long-side", 48)


def test_what_is_learned_shrinks_what_is_extracted(
    run: Run, run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "p.safetensors", tmp_path / "out"
    learning = ("projection", "learn", tmp_path, "-b", model, *SMALL, "--channels", 8)
    told = run_json(*learning, "--out", file)
    assert (told["channels"], told["of"], told["images"]) == (8, 32, 3)
    assert run_json("projection", "show", file) == told
    assert "32 to 8 channels, 4 times less" in run("projection", "show", file).stdout

    chosen = (*images[:2], "-b", model, *SMALL, "--projection", file)
    made = run_json("extract", *chosen, "--out", out)
    ditf = kornia_ditf.create_descriptor(model, long_side=48, projection=file)
    stored = kornia_ditf.DescriptorMap.load(out / "a.safetensors")
    torch.testing.assert_close(stored.data, ditf(images[0]).data)
    assert made["projection"] == ditf.projection.digest  # type: ignore[attr-defined]
    again = run("extract", *chosen, "--out", out)
    assert again.exit_code == 0 and "skipped 2" in " ".join(again.stdout.split())
    other = run("extract", *chosen[:-2], "--out", out)
    assert other.exit_code == 5 and "projection" in other.stderr
    live = run_json("match", *chosen, "--search", "none")
    kept = run_json("match", out / "a.safetensors", out / "b.safetensors")
    assert live["scores"] == pytest.approx(kept["scores"], abs=1e-5)


def test_an_interrupted_command_goes_on(
    run: Run,
    run_json: RunJson,
    images: list[Path],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "p.safetensors"
    learning = ("projection", "learn", tmp_path, "-b", model, *SMALL, "--channels", 4)
    learning = (*learning, "--out", file)
    whole, seen = DiTF.describe_prepared, [0]

    def counted(self: DiTF, images: Any, prompts: Any) -> Any:
        seen[0] += 1
        if seen[0] == 1:
            raise KeyboardInterrupt
        return whole(self, images, prompts)

    monkeypatch.setattr(DiTF, "describe_prepared", counted)
    stopped = run(*learning)
    assert stopped.exit_code == 130 and "the same command goes on" in stopped.stderr
    assert not file.exists()
    images[1].write_bytes(b"none")
    document = run_json(*learning, code=3)
    assert document["failed"] == [str(images[1])] and document["images"] == 2
    assert [path.name for path in tmp_path.glob("*.part")] == []


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        (("--out", "p.pt"), 2, "must end in .safetensors"),
        (("--channels", 99), 2, "channels must lie in [1, 32], got 99"),
        (("--block", 99), 2, "block of "),
    ],
)
def test_wrong_values_are_named(
    changed: tuple[Any, ...],
    code: int,
    said: str,
    run: Run,
    images: list[Path],
    model: Path,
    tmp_path: Path,
) -> None:
    out = ("--out", tmp_path / "p.safetensors")
    result = run("projection", "learn", images[0].parent, "-b", model, *SMALL, *out, *changed)
    assert result.exit_code == code and said in " ".join(result.stderr.split())
    missing = run("match", *images[:2], "-b", model, "--projection", tmp_path / "none")
    assert missing.exit_code == 2 and "there is no file" in missing.stderr
