"""`kornia-ditf plugins`, and the commands and descriptors that plugins add."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import Result

from kornia_ditf import hookimpl
from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
from kornia_ditf.preprocess import as_image
from kornia_ditf.registry import lookup as registry
from kornia_ditf.registry import plugins
from kornia_ditf.types import DescriptorMap, Frame

Run = Callable[..., Result]
RunJson = Callable[..., Any]


class Entry:
    """An installed plugin's entry point, without an installation."""

    def __init__(self, name: str, plugin: object) -> None:
        self.name, self.plugin = name, plugin

    def load(self) -> object:
        if isinstance(self.plugin, BaseException):
            raise self.plugin
        return self.plugin


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Entry]]:
    entries: list[Entry] = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
    registry.forget_plugins()
    yield entries
    registry.forget_plugins()


class Shades(DenseDescriptor):
    """Describes patches of 8 x 8 pixels by their mean colour, and how loud it is told."""

    width = 4

    def __init__(self, loudness: float = 0.0, **_: Any) -> None:
        super().__init__()
        self.loudness = loudness

    @property
    def identity(self) -> str:
        return f"shades {self.loudness}"

    def forward(self, image: Any, prompts: Any = None) -> DescriptorMap:
        pixels = as_image(image)
        size = (pixels.shape[2], pixels.shape[3])
        mean = torch.nn.functional.avg_pool2d(pixels, 8)
        told = self.loudness * len(prompts or "")
        return DescriptorMap(
            torch.cat([mean, torch.full_like(mean[:, :1], told)], 1), Frame(size, size)
        )


def load_shades(*, loudness: float = 0.0, device: Any = None) -> Shades:
    return Shades(loudness)


SPEC = DescriptorSpec(
    name="shades", load=load_shades, width=4, pixels_per_token=8, source="a test", license="MIT"
)


class ShadesPlugin:
    @hookimpl
    def register_descriptors(self) -> list[DescriptorSpec]:
        return [SPEC]

    @hookimpl
    def register_commands(self, cli: typer.Typer) -> None:
        @cli.command("greet")
        def greet(name: str, loudly: bool = False) -> None:
            """Greet somebody."""
            typer.echo(f"hello {name}{'!' * loudly}")

        group = typer.Typer(help="Shades.")
        group.command("dark")(lambda: typer.echo("dark"))
        group.command("light")(lambda: typer.echo("light"))
        cli.add_typer(group, name="shade")


@pytest.fixture
def shades(installed: list[Entry]) -> None:
    installed.append(Entry("shades", ShadesPlugin()))


@pytest.mark.usefixtures("installed")
def test_without_plugins_it_says_so(run: Run, run_json: RunJson) -> None:
    assert run("plugins").stdout == "no plugins are installed\n"
    assert run_json("plugins") == {"plugins": []}


def test_every_plugin_is_listed_with_its_state_and_the_reason(
    installed: list[Entry], run: Run, run_json: RunJson
) -> None:
    installed += [Entry("broken", ImportError("gone")), Entry("shades", ShadesPlugin())]
    result = run("plugins")
    assert result.exit_code == 0 and result.stderr == ""
    assert "ImportError: gone" in result.stdout and "left out" in result.stdout
    broken, sound = run_json("plugins")["plugins"]
    assert (broken["name"], broken["state"]) == ("broken", "left out")
    assert broken["why"][0].startswith(f"ImportError: gone ({__file__}, line ")
    assert (sound["state"], sound["hooks"]) == (
        "works",
        ["register_descriptors", "register_commands"],
    )
    assert sound["registered"] == ["shades", "command greet", "command shade"]
    assert set(broken) == set(sound) >= {"version", "origin", "distribution", "api", "seconds"}


@pytest.mark.usefixtures("shades")
def test_commands_of_plugins_are_listed_and_run(run: Run) -> None:
    assert "greet" in run("--help").stdout
    assert run("greet", "you", "--loudly").stdout == "hello you!\n"
    assert run("shade", "dark").stdout == "dark\n"
    assert "greet" in run("gret").stderr


def with_command(add: Callable[[typer.Typer], object]) -> object:
    module = ModuleType("plugin")

    @hookimpl
    def register_commands(cli: typer.Typer) -> None:
        add(cli)

    module.register_commands = register_commands  # type: ignore[attr-defined]
    return module


def unusable(value: list[list[int]]) -> None:
    """Take what no command line can give."""


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (lambda cli: 1 / 0, "ZeroDivisionError"),
        (lambda cli: cli.command("match")(print), "the command 'match' is taken"),
        (lambda cli: cli.command("greet")(lambda: None), "the command 'greet' is taken"),
        (lambda cli: cli.command("odd")(unusable), "register_commands: AssertionError"),
    ],
)
@pytest.mark.usefixtures("shades")
def test_a_plugin_that_fails_to_add_commands_breaks_no_command(
    add: Callable[[typer.Typer], object],
    reason: str,
    installed: list[Entry],
    run: Run,
    run_json: RunJson,
) -> None:
    installed.append(Entry("z-broken", with_command(add)))
    result = run("--help")
    assert result.exit_code == 0 and "greet" in result.stdout
    assert result.stderr.count("warning: plugin 'z-broken' is left out") == 1
    assert reason in result.stderr
    assert run("greet", "you").stdout == "hello you\n"
    assert run_json("plugins")["plugins"][1]["state"] == "left out"


def test_no_plugin_is_asked_for_a_command_that_is_built_in(
    installed: list[Entry], run: Run, model: Path, images: list[Path]
) -> None:
    installed.append(Entry("hostile", SystemExit(3)))
    result = run("match", images[0], images[1], "-b", model, "--long-side", 32)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [plugin.state for plugin in plugins.installed_plugins()] == ["not asked"]


@pytest.mark.usefixtures("shades")
def test_any_descriptor_matches(run: Run, run_json: RunJson, images: list[Path]) -> None:
    pair = (images[0], images[1])
    text = run("match", *pair, "--descriptor", "shades").stdout
    assert text.startswith("descriptor  shades, 4 channels")
    plain = run_json("match", *pair, "-b", "shades")
    assert plain["points_a"]
    about = plain["backbone"]
    assert (about["name"], about["width"], about["identity"]) == ("shades", 4, "shades 0.0")
    told = run_json(
        "match", *pair, "-b", "shades", "-o", "loudness=2", "--prompt", "a", "--prompt", "a dog"
    )
    assert told["backbone"]["options"] == {"loudness": 2}
    assert told["backbone"]["prompt"] == ["a", "a dog"]
    assert told["scores"] != plain["scores"]


@pytest.mark.usefixtures("shades")
def test_names_with_a_plus_between_them_are_fused(run_json: RunJson, images: list[Path]) -> None:
    about = run_json("match", *images[:2], "-b", "shades+shades", "-o", "weights=[1, 0.5]")
    assert about["backbone"]["width"] == 8
    assert about["backbone"]["identity"].startswith("fused (1.0, 0.5) finest of")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--block", "3"), "shades has no option 'block' (options: device, loudness)"),
        (("-o", "loudness"), "--option must be KEY=VALUE, got 'loudness'"),
        (("-o", "shade=2"), "shades has no option 'shade' (options: device, loudness)"),
    ],
)
@pytest.mark.usefixtures("shades")
def test_what_a_descriptor_has_not_is_refused(
    run: Run, images: list[Path], arguments: tuple[str, ...], expected: str
) -> None:
    result = run("match", images[0], images[1], "-b", "shades", *arguments)
    assert (result.exit_code, result.stderr) == (2, f"error: {expected}\n")


@pytest.mark.usefixtures("shades")
def test_any_descriptor_is_extracted_and_skipped_the_second_time(
    run: Run, run_json: RunJson, images: list[Path], tmp_path: Path
) -> None:
    command = ("extract", *images, "--out", tmp_path / "out", "-b", "shades")
    assert run(*command).exit_code == 0
    path = tmp_path / "out" / "a.safetensors"
    assert load_file(path)["descriptors"].shape == (4, 6, 8)
    with safe_open(path, "pt") as file:
        assert file.metadata()["identity"] == '"shades 0.0"'
    assert len(run_json(*command)["skipped"]) == 3
    assert run(*command, "-o", "loudness=1").exit_code == 5
    assert len(run_json(*command, "-o", "loudness=1", "--overwrite")["written"]) == 3


@pytest.mark.usefixtures("shades")
def test_inspect_says_that_it_needs_a_transformer(run: Run, images: list[Path]) -> None:
    result = run("inspect", images[0], "-b", "shades")
    assert result.exit_code == 2
    assert "needs a Diffusion Transformer, and shades is not one" in result.stderr


@pytest.mark.usefixtures("shades")
def test_descriptors_are_listed_and_shown_beside_backbones(run: Run, run_json: RunJson) -> None:
    assert any(line.startswith("shades ") for line in run("backbones").stdout.splitlines())
    assert "shades" in [each["name"] for each in run_json("backbones")["descriptors"]]
    assert "4 channels" in run("backbones", "show", "shades").stdout
    assert run_json("backbones", "show", "shades")["width"] == 4
