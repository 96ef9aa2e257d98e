"""Presets: their files, whose weights they hold for, and those that come with the package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kornia_ditf as kd
from kornia_ditf.calibration.preset import Measured, Preset, Settings, Weights, read_preset
from kornia_ditf.calibration.result import identify
from kornia_ditf.calibration.store import SHIPPED, add_preset, find_stored, with_preset
from kornia_ditf.errors import PresetError, PresetWarning
from kornia_ditf.registry.lookup import find_backbone


@pytest.fixture
def model(tiny_checkpoint: Callable[[str], Path]) -> Path:
    return tiny_checkpoint("nano")


def preset_for(folder: Path, **changes: Any) -> Preset:
    spec = find_backbone(folder)
    weights = identify(spec, None, kd.create_ditf(folder), {})
    settings = {
        "block": 1,
        "timestep": 30.0,
        "long_side": 48,
        "ensemble": 2,
        "treatment": "adaln",
        "massive_channels": (3,),
    }
    measured = Measured(
        task="same-scene",
        criterion="PCK",
        score=0.9,
        low=0.8,
        high=0.95,
        certainty=0.7,
        samples=12,
        images="0" * 32,
        date="2026-11-25 10:00:00 UTC",
        computed="float32",
    )
    return Preset(
        backbone=None,
        weights=weights,
        settings=Settings(**{**settings, **changes}),
        measured=measured,
    )


def test_a_kept_preset_is_used_for_its_weights_and_said(model: Path) -> None:
    before = kd.create_ditf(model).config
    add_preset(preset_for(model))
    ditf = kd.create_ditf(model)
    config = ditf.config
    assert (config.block, config.timestep, config.long_side, config.ensemble) == (1, 30, 48, 2)
    assert config.treatment == "adaln" and config.massive_channels == (3,)
    assert "calibrated by you: same-scene, 90.0 % (80.0 to 95.0) on 12 samples" in repr(ditf)
    assert kd.create_ditf(model, preset="none").config == before
    assert kd.create_ditf(model, block=2).config.massive_channels is None


def test_a_copy_of_the_weights_is_recognised_and_other_weights_are_not(
    model: Path, tmp_path: Path
) -> None:
    add_preset(preset_for(model))
    copy = tmp_path / "renamed"
    shutil.copytree(model, copy)
    assert kd.create_ditf(copy).config.block == 1
    shard = min(copy.glob("transformer/*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1  # one bit of its first tensor
    shard.write_bytes(content)
    assert kd.create_ditf(copy).config.block != 1


def test_a_named_file_is_used_and_refused_for_other_weights(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "shared.json"
    preset_for(model).save(file)
    assert kd.create_ditf(model, preset=file).config.block == 1
    with pytest.raises(PresetError, match=r"shared\.json holds .*: tiny-nano@.* not for nano"):
        kd.create_ditf("nano", preset=file)


def test_two_names_of_the_same_weights_keep_their_presets_apart(model: Path) -> None:
    nano = find_backbone("nano")
    preset = preset_for(model)
    weights = Weights(identity="x@1", fingerprint=None, blocks=nano.blocks, width=nano.width)
    mine = replace(preset, backbone="nano", weights=weights)
    assert mine.concerns(nano)
    assert not replace(mine, backbone="other").concerns(nano)


def test_a_preset_survives_its_file(model: Path, tmp_path: Path) -> None:
    preset = preset_for(model)
    preset.save(tmp_path / "p.json")
    assert read_preset(tmp_path / "p.json") == preset


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("settings", "block"), 99, "block must lie in"),
        (("settings", "timestep"), 2600, "timestep must lie in"),
        (("settings", "treatment"), "adaln >", "treatment must name steps, got 'adaln >'"),
        (("settings", "massive_channels"), [-1], "massive_channels"),
        (("settings", "massive_channels"), [1 << 20], "massive_channels"),
        (("settings", "long_side"), "large", "settings has a wrong long_side: 'large'"),
        (("measured", "score"), 7.5, "score must lie in"),
        (("weights", "width"), None, "weights has a wrong width"),
        (("settings", "colour"), 1, "settings has an unknown 'colour'"),
        (("kornia_ditf_preset",), 99, "another format"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(
    where: tuple[str, ...], value: Any, message: str, model: Path, tmp_path: Path
) -> None:
    values = json.loads(preset_for(model).to_json())
    inner = values
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(values))
    with pytest.raises(PresetError, match=message) as caught:
        read_preset(file)
    assert "wrong.json" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": "another tool"}', "\xff"])
def test_a_foreign_file_is_an_error_where_it_is_named_and_a_warning_where_it_is_kept(
    content: str, model: Path
) -> None:
    kept = add_preset(preset_for(model))
    kept.write_bytes(content.encode("latin-1"))
    with pytest.raises(PresetError, match=kept.stem):
        read_preset(kept)
    spec = find_backbone(model)
    with pytest.warns(PresetWarning, match=f"presets remove {kept.stem}"):
        assert with_preset(spec) is spec


def test_a_preset_that_is_not_there_is_named_with_those_that_are(model: Path) -> None:
    kept = add_preset(preset_for(model))
    assert find_stored(kept.stem).path == kept
    with pytest.raises(PresetError, match=f"'absent'.*{kept.stem}"):
        find_stored("absent")
    with pytest.raises(PresetError, match="there is no preset"):
        read_preset("absent.json")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*")), ids=lambda path: path.name)
def test_what_comes_with_the_package_is_sound_and_of_published_weights(path: Path) -> None:
    if path.name == "README.md":
        return
    preset = read_preset(path)
    assert path.name == f"{preset.backbone}.json"
    spec = find_backbone(str(preset.backbone))
    assert preset.concerns(spec)
    assert "@" in preset.weights.identity and preset.weights.fingerprint is not None
    assert preset.measured.samples >= 20
