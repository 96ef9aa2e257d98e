"""The pages agree with the code: their examples run, their tables and links hold."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pluggy
import pytest
from PIL import Image

import kornia_ditf
from kornia_ditf import backbones, errors
from kornia_ditf.cli import failures
from kornia_ditf.config import DiTFConfig
from kornia_ditf.registry import hookspecs

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@PAGE
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def examples(page: Path) -> str:
    """Join a page's Python examples, but for those that need weights to be downloaded."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return "".join(block for block in blocks if not block.startswith("# needs a download"))


@pytest.mark.parametrize("page", list(filter(examples, PAGES)), ids=lambda page: page.name)
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Images at half their size, and what models see at a third, so that the tests stay short.
    from_spec = DiTFConfig.from_spec
    monkeypatch.setattr(
        DiTFConfig, "from_spec", lambda spec, **more: from_spec(spec, **{"long_side": 112, **more})
    )
    for name in "ab":
        with Image.open(ROOT / f"examples/data/graffiti_{name}.jpg") as photograph:
            photograph.reduce(2).save(tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(examples(page), page.name, "exec"), {})


def test_the_tutorial_holds_the_template_whole_and_in_order() -> None:
    template = ROOT / "plugins" / "kornia-ditf-template"
    parts: dict[str, str] = {}
    for path, code in re.findall(r"```\w+ (\S+)\n(.*?)```", read("docs/tutorial.md"), re.DOTALL):
        parts[path] = parts.get(path, "") + code

    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.strip()]

    assert {path: lines(code) for path, code in parts.items()} == {
        path: lines((template / path).read_text("utf-8")) for path in parts
    }
    files = {str(path.relative_to(template)) for path in template.glob("*/**/*.py")}
    assert set(parts) >= files | {"pyproject.toml"}
    package = [code for path, code in parts.items() if path.startswith("kornia_ditf_template/")]
    assert len("".join(package).splitlines()) < 100


def test_the_reference_names_everything_public() -> None:
    named = re.findall(r"\.\. auto\w+:: (\w+)\n", read("docs/reference.md"))
    documented = {*named, *(n for n in dir(errors) if n.endswith("Error"))}
    assert documented >= set(kornia_ditf.__all__)


def test_every_error_is_explained() -> None:
    page = read("docs/errors.md")
    names = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    assert [
        name for name in names if f"`{name}`" not in page.replace("kornia_ditf.errors.", "")
    ] == []


def test_every_module_has_its_place_in_the_architecture() -> None:
    package = Path(kornia_ditf.__file__).parent
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    folders = {path.parent.name + "/" for path in package.glob("*/__init__.py")}
    named = set(re.findall(r"`([\w/]+)`", read("docs/architecture.md").split("## Modules")[1]))
    assert modules | folders <= named


def test_every_hook_is_documented_with_its_signature() -> None:
    page = read("docs/hooks.md")
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name in vars(manager.hook):
        hook = getattr(hookspecs, name, None)
        if hook is None:
            continue
        assert f"\n## {name}\n" in page
        assert f"\n{name}{inspect.signature(hook)}\n".replace("'", "") in page


@pytest.mark.parametrize("name", ["README.md", "docs/backbones.md"])
def test_every_built_in_backbone_is_listed(name: str) -> None:
    page = read(name)
    assert [
        spec.name
        for spec in backbones.SPECS
        if f"| `{spec.name}`" not in page.replace(", `", "| `")
    ] == []


def test_the_table_of_backbones_says_what_the_presets_say() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in read("docs/backbones.md").splitlines()
        if line.startswith("| `")
    ]
    row_of = {name: row for row in rows for name in re.findall(r"`(.+?)`", row[0])}
    for spec in backbones.SPECS:
        _, blocks, width, pixels, numbers, licence = row_of[spec.name]
        assert sum(int(part) for part in blocks.split("+")) == spec.blocks
        assert (int(width), int(pixels)) == (spec.width, spec.pixels_per_token)
        assert spec.license.startswith(licence)
        assert numbers.startswith("uncalibrated") != spec.calibrated


def test_the_exit_codes_are_those_that_the_help_lists() -> None:
    listed = re.findall(r"^ +(\d+) +(.+)$", failures.EXIT_CODES, re.MULTILINE)
    assert listed
    assert re.findall(r"^\| (\d+) \| (.+) \|$", read("docs/cli.md"), re.MULTILINE) == listed
