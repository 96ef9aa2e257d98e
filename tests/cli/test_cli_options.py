"""The options that commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import torch
from typer.testing import Result

import kornia_ditf
from kornia_ditf.cli.options import documented, read_path

Run = Callable[..., Result]
RunJson = Callable[..., Any]
SMALL = ("--long-side", 48)
SEVERAL = ("--blocks", "1-2", "--timesteps", "0,100")


def test_joined_blocks_and_averaged_timesteps_are_those_of_the_library(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    ditf = kornia_ditf.create_descriptor(
        model, long_side=48, blocks=(1, 2), timesteps=(0, 100), massive_channels=()
    )
    told = run_json("extract", images[0], "-b", model, *SMALL, *SEVERAL, "--out", tmp_path / "out")
    stored = kornia_ditf.DescriptorMap.load(tmp_path / "out" / "a.safetensors")
    torch.testing.assert_close(stored.data, ditf(images[0]).data)
    assert told["joined_blocks"] == [1, 2] and told["timesteps"] == [0, 100]
    found = run_json("match", *images[:2], "-b", model, *SMALL, *SEVERAL, "--search", "none")
    expected = kornia_ditf.match_images(images[0], images[1], ditf, search="none").matches
    torch.testing.assert_close(
        torch.tensor(found["scores"]), expected.scores, atol=1e-5, rtol=0, check_dtype=False
    )


def test_files_of_other_timesteps_are_other_settings(
    run: Run, images: list[Path], model: Path, tmp_path: Path
) -> None:
    first = run("extract", images[0], "-b", model, *SMALL, *SEVERAL, "--out", tmp_path)
    assert first.exit_code == 0 and "blocks joined" in first.stdout
    other = run("extract", images[0], "-b", model, *SMALL, "--facet", "key", "--out", tmp_path)
    assert other.exit_code == 5 and "joined_blocks, timesteps, facet" in other.stderr


@pytest.mark.parametrize("command", ["match", "inspect"])
def test_a_facet_is_taken_and_told(
    command: str, run_json: RunJson, images: list[Path], model: Path
) -> None:
    found = run_json(command, *images[:2], "-b", model, *SMALL, "--facet", "key")
    assert found["backbone"]["facet"] == "key" and found["backbone"]["treatment"] == "raw"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--timesteps", "0,100,0"), "must not repeat"),
        (("--timesteps", "0,2000"), "[0, 1000]"),
        (("--timesteps", ""), "comma-separated numbers"),
        (("--blocks", "2,99"), "--blocks must lie in 0 to"),
        (("--blocks", "3-1"), "must ascend"),
        (("--facet", "keys"), "key"),
        (("--treatment", "adaln+discrad"), "did you mean 'adaln+discard'"),
    ],
)
def test_wrong_values_are_named(
    options: tuple[str, str], said: str, run: Run, images: list[Path], model: Path
) -> None:
    result = run("match", *images[:2], "-b", model, *options)
    assert result.exit_code == 2 and said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_stored_descriptors_are_reduced_as_images_are(
    run_json: RunJson, images: list[Path], model: Path, tmp_path: Path
) -> None:
    chosen = ("-b", model, *SMALL, "--block", 2)
    run_json("extract", *images[:2], *chosen, "--out", tmp_path)
    stored = run_json("match", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--pca", 5)
    live = run_json("match", *images[:2], *chosen, "--search", "none", "--pca", 5)
    whole = run_json("match", *images[:2], *chosen, "--search", "none")
    assert live["pca"] == 5 and whole["pca"] == 0
    assert stored["scores"] == pytest.approx(live["scores"], abs=1e-5)
    assert live["scores"] != pytest.approx(whole["scores"], abs=1e-3)


def test_an_option_is_declared_by_its_docstring() -> None:
    def command(count: Annotated[int, {"min": 1}] = 2, folder: Path | None = None) -> None:
        """Do this.

        Options:
            --count, -c N: As often: or once, where nothing is
                said. [default: two]
            --folder DIR: Here.
        """

    declared = inspect.signature(documented(command)).parameters
    count, folder = (get_args(declared[name].annotation)[1] for name in ("count", "folder"))
    assert command.__doc__ == "Do this."
    assert (count.default, *count.param_decls, count.metavar) == ("--count", "-c", "N")
    assert count.help == "As often: or once, where nothing is said.  [default: two]"
    assert count.min == 1 and folder.parser is read_path


@pytest.mark.parametrize("line", ["--size N: Another name.", "--count without a colon"])
def test_an_option_that_is_described_wrongly_is_refused(line: str) -> None:
    def command(count: int = 2) -> None: ...

    command.__doc__ = f"Do this.\n\nOptions:\n    {line}\n"
    with pytest.raises(TypeError, match="size|without a colon"):
        documented(command)
