"""`kornia-ditf backbones`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from kornia_ditf.loading import checkpoint
from kornia_ditf.registry import lookup as registry
from kornia_ditf.registry.lookup import list_backbones

Run = Callable[..., Result]
RunJson = Callable[..., Any]


@pytest.fixture
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.Checkpoint, "_remote", None)


@pytest.mark.parametrize("command", [("backbones",), ("backbones", "list")])
def test_every_backbone_is_listed_on_a_line_of_its_own(run: Run, command: tuple[str, ...]) -> None:
    lines = run(*command).stdout.splitlines()
    for name, spec in list_backbones().items():
        (line,) = [line for line in lines if line.split()[:1] in ([name], [f"{name}*"])]
        assert f" {spec.block} " in line and spec.license in line
        assert ("uncalibrated" in line) != spec.calibrated
    assert all(line == line.rstrip() and line.isascii() for line in lines)


def test_each_number_says_where_it_comes_from(run: Run) -> None:
    text = run("backbones").stdout
    for spec in list_backbones().values():
        assert spec.source in text


def test_the_list_as_json_holds_the_presets(run_json: RunJson) -> None:
    found = {entry["name"]: entry for entry in run_json("backbones")["backbones"]}
    assert found["flux.1-dev"]["massive_channels"] == [154, 1446]
    assert found["dit-xl-2-256"]["calibrated"] is False


@pytest.mark.usefixtures("_no_hub")
def test_without_the_hub_memory_is_worked_out_and_that_is_said(run: Run) -> None:
    result = run("backbones", "show", "dit-xl-2-256", "--block", 0)
    assert result.exit_code == 0, result.stderr
    assert "up to block 0: transformer" in result.stdout
    assert "the hub cannot be reached" in result.stdout
    assert "the architecture alone" in result.stdout


def test_a_folder_needs_no_download_and_less_memory_for_an_earlier_block(
    run: Run, run_json: RunJson, model: Path
) -> None:
    command = ("backbones", "show", model)
    text = run(*command).stdout
    assert re.search(r"^download +nothing$", text, re.MULTILINE) and "uncalibrated" in text
    early, late = (run_json(*command, "--block", block)["plan"]["bytes"] for block in (0, 3))
    assert early["held"] < late["held"] <= late["transformer_whole"]
    half = run_json(*command, "--block", 3, "--dtype", "bf16")["plan"]["bytes"]
    whole = run_json(*command, "--block", 3, "--dtype", "fp32")["plan"]["bytes"]
    assert whole["held"] == 2 * half["held"]


def test_the_embedded_backbone_says_that_it_comes_with_the_package(run: Run) -> None:
    assert "(comes with the package)" in run("backbones", "show", "nano").stdout


@pytest.mark.usefixtures("_no_hub")
def test_options_are_compared_with_the_memory_of_a_card(run: Run, run_json: RunJson) -> None:
    text = run("backbones", "show", "sd3.5-medium", "--memory", "4GB", "--long-side", 512).stdout
    assert "what fits a card, 4 GB, with one noisy image of 512 x 512 px" in text
    rows = {line.split("  ")[0]: line.split()[-1] for line in text.splitlines() if "=" in line}
    assert rows['dtype="float32"'] == "no" and rows['quantize="int8", offload="layers"'] == "yes"
    found = run_json("backbones", "show", "sd3.5-medium", "--memory", "500 MiB")
    assert found["memory"] == {"of": "a card", "bytes": 500 * 2**20}
    assert not any(row["fits"] for row in found["plan"]["options"])
    larger = run_json("backbones", "show", "sd3.5-medium", "--long-side", 2048)
    for row, other in zip(larger["plan"]["options"], found["plan"]["options"], strict=False):
        assert row["held"] == other["held"] and row["describing"] > other["describing"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nano", "--memory", "much"), 2),
        (("nano", "--memory", "0GB"), 2),
        (("flux1-dev",), 4),
        (("nano", "--block", "8"), 2),
        (("nano", "--dtype", "int8"), 2),
    ],
)
def test_what_cannot_be_shown_is_one_line(run: Run, arguments: tuple[str, ...], code: int) -> None:
    result = run("backbones", "show", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("_no_hub")
def test_a_backbone_whose_memory_nobody_knows_is_shown_all_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(list_backbones()["flux.1-dev"], architecture={})
    monkeypatch.setattr(registry, "find_descriptor", lambda name: spec)
    shown = run("backbones", "show", "flux.1-dev").stdout
    assert "57 of 3072 channels" in shown and "not known" in shown
