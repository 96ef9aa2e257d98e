"""What the tests of the command line share: images, tiny models, and a way to run commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blobs import write_blobs
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from kornia_ditf.cli.app import app


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run a command as from a shell, and give its exit code, output and error output."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def run_json(run: Callable[..., Result]) -> Callable[..., Any]:
    """Run a command with --json, and give its document."""

    def run_json(*arguments: object, code: int = 0) -> Any:
        result = run(*arguments, "--json")
        assert result.exit_code == code, result.stderr
        return json.loads(result.stdout)

    return run_json


@pytest.fixture
def model(tiny_checkpoint: Callable[[str], Path]) -> Path:
    """A tiny random model in nano's layout; not to be changed."""
    return tiny_checkpoint("nano")


@pytest.fixture
def massive_model(model: Path, tmp_path: Path) -> Path:
    """The same with channels 7 and 19 planted far above the rest."""
    folder = tmp_path / "massive-model"
    shutil.copytree(model, folder)
    name = "patch_embed.proj.bias"
    for path in folder.glob("transformer/*.safetensors"):
        tensors = load_file(path)
        if name in tensors:
            tensors[name][[7, 19]] += 120
            save_file(tensors, path, {"format": "pt"})
    return folder


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three small pictures of smooth blobs, of different sizes."""
    generator = np.random.default_rng(0)
    sizes = {"a": (48, 64), "b": (64, 48), "c": (48, 48)}
    return [write_blobs(tmp_path / f"{name}.png", generator, sizes[name]) for name in sizes]
