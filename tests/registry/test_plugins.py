"""Plugins as they may be: sound, broken in every way, slow, switched off."""

from __future__ import annotations

import importlib.metadata
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kornia_ditf import find_backbone, hookimpl, list_backbones
from kornia_ditf.errors import PluginWarning
from kornia_ditf.registry import lookup as registry
from kornia_ditf.registry import plugins

HEADER = """
from kornia_ditf import BackboneSpec, hookimpl

def toy(name):
    return BackboneSpec.uncalibrated(
        name=name, repo="someone/toy", pipeline="ToyPipeline", load=print, blocks=7, width=8,
        pixels_per_token=16, long_side=256, license="MIT",
    )
"""
SOUND = (
    HEADER
    + """
KORNIA_DITF_API = 1

@hookimpl
def register_backbones():
    return [toy("toy")]
"""
)


def hook(body: str, name: str = "register_backbones") -> str:
    return f"{HEADER}\n@hookimpl\ndef {name}():\n    {body}\n"


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install plugins as distributions, and none of those that are installed otherwise."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: [
            entry
            for found in importlib.metadata.distributions(path=[str(site)])
            for entry in found.entry_points
            if entry.group == group
        ],
    )
    made: list[str] = []

    def install(
        code: str,
        *,
        name: str = "a-plugin",
        distribution: str | None = None,
        entries: str | None = None,
    ) -> None:
        module = f"plugin_of_test_{name.replace('-', '_')}_{len(made)}"
        made.append(module)
        distribution = distribution or f"kornia-ditf-{name}"
        (site / f"{module}.py").write_text(code)
        info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        entries = entries or f"{name} = {module}"
        (info / "entry_points.txt").write_text(f"[kornia_ditf]\n{entries}\n")
        registry.forget_plugins()

    registry.forget_plugins()
    yield install
    registry.forget_plugins()
    for module in made:
        sys.modules.pop(module, None)


def only_plugin() -> plugins.Plugin:
    """Ask all plugins, of which there is one, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        (plugin,) = registry.ask_plugins()
    return plugin


def test_a_sound_plugin_says_all_of_itself(install: Install) -> None:
    install(SOUND)
    assert find_backbone("toy").blocks == 7
    plugin = only_plugin()
    assert (plugin.name, plugin.distribution, plugin.version) == (
        "a-plugin",
        "kornia-ditf-a-plugin",
        "1.2",
    )
    assert (plugin.state, plugin.reasons, plugin.api) == ("works", [], 1)
    assert (plugin.hooks, plugin.registered) == (("register_backbones",), ["toy"])
    assert plugin.origin.endswith("plugin_of_test_a_plugin_0.py")


BROKEN = {
    "No module named 'no_such_module'": "import no_such_module",
    "SyntaxError": "def",
    "SystemExit: 3": "import sys; sys.exit(3)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "RuntimeError: it broke": hook('raise RuntimeError("it broke")'),
    "SystemExit": hook("raise SystemExit"),
    "str\\(\\) failed": "class E(Exception):\n    def __str__(self): raise E\nraise E",
    "returned None, not a list": hook("return None"),
    "returned a str": hook('return ["toy"]'),
    "returned a DescriptorSpec": hook(
        "from kornia_ditf import DescriptorSpec; return [DescriptorSpec(name='x', load=print, "
        "width=1, pixels_per_token=1, source='x', license='x')]"
    ),
    "not iterable": hook("return 3"),
    "endless specs": hook('import itertools; return itertools.repeat("toy")'),
    "blocks must be 1 or more": hook(
        'import dataclasses; yield dataclasses.replace(toy("t"), blocks=0)'
    ),
    "returned a Odd": hook(
        "class Odd(BackboneSpec):\n        name = 3\n        def __init__(self): pass\n"
        "    return [Odd()]"
    ),
    "unknown hook 'register_backbone'": hook("return []", "register_backbone"),
    "takes_too_much": HEADER + "@hookimpl\ndef register_backbones(takes_too_much): return []",
    "implements no hook": "def register_backbones(): return []",
    "version 2 of the hooks": SOUND.replace("API = 1", "API = 2"),
    "version '1' of the hooks": SOUND.replace("API = 1", "API = '1'"),
    "'nano' belongs to kornia_ditf": hook('return [toy("nano")]'),
    "'a\\+b' is not a name": hook('return [toy("a+b")]'),
}


@pytest.mark.parametrize("reason", list(BROKEN))
def test_a_broken_plugin_is_named_once_and_everything_else_goes_on(
    reason: str, install: Install
) -> None:
    install(BROKEN[reason], name="a-broken")
    install(SOUND, name="b-sound")
    with pytest.warns(PluginWarning, match=f"'a-broken' is left out: .*{reason}") as caught:
        names = [*list_backbones(), *list_backbones()]
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert "toy" in names and "flux.1-dev" in names
    assert find_backbone("nano").license == "Apache-2.0"
    broken, sound = registry.ask_plugins()
    assert (broken.state, sound.state) == ("left out", "works")


def test_what_is_sound_of_a_plugin_stays(install: Install) -> None:
    install(hook('return [toy("nano"), toy("toy"), toy("toy"), 3]'))
    with pytest.warns(PluginWarning, match="left out in part: .*'nano' belongs to kornia_ditf; "):
        assert list_backbones()["toy"].blocks == 7
    plugin = only_plugin()
    assert (plugin.state, plugin.registered) == ("works in part", ["toy"])
    assert plugin.reasons[1:] == [
        "the name 'toy' belongs to a-plugin",
        "register_backbones returned a int",
    ]


@pytest.mark.parametrize("where", ["import", "hook"])
def test_a_plugin_that_hangs_is_left_behind(
    where: str, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugins.SECONDS, "0.2")
    hang = "import threading; threading.Event().wait()"
    install(hang if where == "import" else hook(hang), name="a-hanging")
    with pytest.warns(PluginWarning, match="'a-hanging' is left out: it did not answer within"):
        assert "nano" in list_backbones()


def test_what_comes_with_the_package_is_found_without_asking_any_plugin(
    install: Install, tiny_checkpoint: Callable[[str], Path]
) -> None:
    install('raise RuntimeError("imported")')
    for name in ("nano", "flux.1-dev", "black-forest-labs/FLUX.1-dev", tiny_checkpoint("dit")):
        assert registry.find_descriptor(name)
    assert [plugin.state for plugin in plugins.installed_plugins()] == ["not asked"]


def test_no_plugin_is_asked_after_the_one_that_has_the_name(install: Install) -> None:
    install(SOUND, name="a-sound")
    install("import no_such_module", name="b-broken")
    assert find_backbone("toy").blocks == 7
    assert [plugin.state for plugin in plugins.installed_plugins()] == ["works", "not asked"]


@pytest.mark.parametrize(
    ("selected", "states"),
    [
        (None, ["works", "works"]),
        ("", ["switched off", "switched off"]),
        ("a-sound", ["works", "switched off"]),
        ("kornia_ditf.B, ", ["switched off", "works"]),
        ("A_Sound,kornia-ditf-b", ["works", "works"]),
    ],
)
def test_the_environment_chooses_plugins_by_their_or_their_distributions_names(
    selected: str | None, states: list[str], install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(SOUND, name="a-sound")
    install(hook('return [toy("other")]'), name="another", distribution="kornia-ditf-b")
    if selected is not None:
        monkeypatch.setenv(plugins.SELECTION, selected)
    assert [plugin.state for plugin in registry.ask_plugins()] == states


def test_a_distributions_name_chooses_all_of_its_plugins(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = "one = plugin_of_test_a_sound_0\ntwo = plugin_of_test_a_sound_0"
    install(SOUND, name="a-sound", entries=two)
    monkeypatch.setenv(plugins.SELECTION, "kornia-ditf-a-sound")
    states = {plugin.name: plugin.state for plugin in plugins.installed_plugins()}
    assert states == {"one": "not asked", "two": "not asked"}


def test_a_chosen_plugin_that_is_not_there_is_named(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(SOUND)
    monkeypatch.setenv(plugins.SELECTION, "a-plugin,flox")
    with pytest.warns(PluginWarning, match="KORNIA_DITF_PLUGINS names flox, and no such plugin"):
        assert "toy" in list_backbones()


def test_what_a_plugin_prints_stays_out_of_the_output(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("print('at import')\n" + hook("print('in a hook'); return []"))
    assert "nano" in list_backbones()
    out, err = capsys.readouterr()
    assert out == "" and err == "at import\nin a hook\n"


def test_threads_that_ask_at_once_all_find_the_name(install: Install) -> None:
    install(hook('import time; time.sleep(0.3); return [toy("toy")]'))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: find_backbone("toy").name, range(4)))
    assert found == ["toy"] * 4


def test_a_hook_may_look_at_what_is_there(install: Install) -> None:
    install(hook('import kornia_ditf as kd; return [toy(f"toy-{len(kd.list_backbones()) > 5}")]'))
    assert "toy-True" in list_backbones()


class Commands:
    """A plugin in which a command is added."""

    @hookimpl
    def register_commands(self, cli: Any) -> None:
        cli.command("greet")(print)


class Entry:
    """An entry point without a distribution."""

    name = "commands"

    def load(self) -> object:
        return Commands()


def test_a_plugin_adds_commands_to_what_it_is_given(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [Entry()])
    registry.forget_plugins()
    (plugin,) = plugins.installed_plugins()
    assert plugin.specs(["register_backbones"]) == {"register_backbones": []}
    added: list[str] = []

    class Cli:
        def command(self, name: str) -> Callable[[object], None]:
            added.append(name)
            return lambda function: None

    plugin.add_commands(Cli())
    assert added == ["greet"] and plugin.hooks == ("register_commands",)


def test_asking_for_commands_calls_no_other_hook(install: Install) -> None:
    install(hook("raise RuntimeError") + "\n@hookimpl\ndef register_commands(cli): cli.append(1)")
    (plugin,) = plugins.installed_plugins()
    added: list[int] = []
    plugin.add_commands(added)
    assert (added, plugin.state) == ([1], "works")
    assert (only_plugin().state, plugin.reasons[0][:12]) == ("left out", "RuntimeError")


def test_what_fails_later_is_reported_later_and_once(install: Install) -> None:
    commands = "\n@hookimpl\ndef register_commands(cli): cli.fail()"
    install(hook('return [toy("nano"), toy("toy")]') + commands)
    (plugin,) = plugins.installed_plugins()
    plugin.add_commands(None)
    with pytest.warns(PluginWarning, match="'a-plugin' is left out: AttributeError"):
        plugin.report()
    with pytest.warns(PluginWarning, match="left out in part: the name 'nano' belongs") as caught:
        assert "toy" in list_backbones()
    assert len(caught) == 1 and plugin.state == "works in part"


def test_a_plugin_that_answers_too_late_stays_left_out(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(f"import time; time.sleep(0.5)\n{SOUND}")
    monkeypatch.setenv(plugins.SECONDS, "0.1")
    before = set(threading.enumerate())  # other tests' plugins never answer
    plugin = only_plugin()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert (plugin.state, plugin.hooks) == ("left out", ())
    assert "toy" not in list_backbones()


def test_every_hook_is_called() -> None:
    from kornia_ditf.registry import hookspecs

    called = {hook for catalogue in registry.CATALOGUES for hook in catalogue.kinds}
    hooks = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert {*called, "register_commands"} == hooks
