"""Damaged and odd model files: whatever is wrong with them, the error is one of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutations import mutate

from kornia_ditf.errors import CheckpointError, DiTFError
from kornia_ditf.registry.lookup import find_backbone

ODD: tuple[Any, ...] = (None, 0, -1, 1.5, float("nan"), "", "x", [], {}, [None], {"a": 1}, True)


def places(value: Any) -> list[tuple[Any, Any]]:
    """List every value inside a JSON document, as the object that holds it and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in items:
        found.append((value, key))
        found += places(inner) if isinstance(inner, dict | list) else []
    return found


def damage(path: Path, generator: np.random.Generator) -> None:
    """Damage the bytes of a file, or put an odd value into a JSON file that stays well formed."""
    if path.suffix != ".json" or generator.random() < 0.3:
        path.write_bytes(mutate(path.read_bytes(), generator))
        return
    document = json.loads(path.read_text("utf-8"))
    found = places(document)
    if found:
        holder, key = found[int(generator.integers(len(found)))]
        holder[key] = ODD[int(generator.integers(len(ODD)))]
    path.write_text(json.dumps(document), "utf-8")


@torch.no_grad()
def use(folder: Path, prompt: str) -> None:
    spec = find_backbone(folder)
    assert spec.plan is not None
    spec.plan(folder, block=1)
    backbone = spec.load(folder, block=1)
    latent = backbone.encode(torch.zeros(1, 3, 32, 32))
    backbone.tap(latent, 260, backbone.condition([prompt]), block=1)


@pytest.mark.parametrize("family", ["dit", "flux"])
@pytest.mark.parametrize("seed", range(20))
def test_damaged_files_of_a_model_give_errors_of_our_own(
    family: str,
    seed: int,
    tiny_checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(tiny_checkpoint(family), tmp_path / family))
    generator = np.random.default_rng(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    damage(files[int(generator.integers(len(files)))], generator)
    with suppress(DiTFError):  # some damage is harmless
        use(folder, "" if family == "dit" else "a")


@pytest.mark.parametrize(
    ("family", "file", "change"),
    [
        ("dit", "scheduler/scheduler_config.json", {"trained_betas": 64}),
        ("flux", "tokenizer/tokenizer_config.json", {"model_max_length": {"a": 1}}),
        ("flux", "tokenizer_2/tokenizer_config.json", {"pad_token": None}),
        ("flux", "text_encoder_2/config.json", {"relative_attention_max_distance": 0}),
    ],
)
def test_odd_values_in_schedulers_tokenizers_and_text_encoders_are_refused(
    family: str,
    file: str,
    change: dict[str, Any],
    tiny_checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(tiny_checkpoint(family), tmp_path / family))
    values = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps({**values, **change}), "utf-8")
    with pytest.raises(CheckpointError, match="no valid noise schedule|text encoders of .* a"):
        use(folder, "" if family == "dit" else "a")


def test_an_index_that_does_not_name_the_transformer_is_no_obstacle(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("dit"), tmp_path / "dit"))
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    del index["transformer"]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    spec = find_backbone(folder)
    assert spec.plan is not None and spec.plan(folder).transformer_held > 0
