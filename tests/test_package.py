"""The package's edges: what it shows, what importing it loads, what no file of it may hold."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kornia_ditf

PACKAGE = Path(kornia_ditf.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = (
    "PIL",
    "accelerate",
    "cv2",
    "diffusers",
    "huggingface_hub",
    "kornia",
    "matplotlib",
    "torchvision",
    "transformers",
)


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter and list the top-level packages that it loaded."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_and_listing_what_there_is_load_no_model_library() -> None:
    code = "import kornia_ditf as kd; kd.list_backbones(); kd.list_descriptors()"
    assert loaded_by(code).isdisjoint(HEAVY)


@pytest.mark.parametrize("name", kornia_ditf.__all__)
def test_every_public_name_can_be_had_and_is_documented(name: str) -> None:
    value = getattr(kornia_ditf, name)
    assert not callable(value) or (value.__doc__ or "").strip()


def test_no_public_name_is_a_modules_too() -> None:
    # The module, once imported, would take the name's place in the package.
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert modules.isdisjoint(kornia_ditf.__all__)


def test_the_root_has_at_most_sixteen_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 16


def test_the_list_of_public_names_is_what_the_stub_imports() -> None:
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8"))
    imported = [
        alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert sorted(alias.name for alias in imported) == kornia_ditf.__all__
    # To a type checker, a stub without `__all__` exports what it imports under the same name.
    assert all(alias.asname == alias.name for alias in imported)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = kornia_ditf.no_such_name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
class TestFile:
    def test_begins_by_saying_what_it_does(self, path: Path) -> None:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8")))

    def test_holds_one_thing(self, path: Path) -> None:
        lines = path.read_text("utf-8").count("\n")
        assert lines < 400

    def test_reads_and_writes_no_pickle(self, path: Path) -> None:
        names = set(dotted_names(ast.parse(path.read_text("utf-8"))))
        assert names.isdisjoint({"pickle", "torch.load", "torch.save", "numpy.load", "np.load"})

    def test_prints_nothing_and_imports_relatively_nothing(self, path: Path) -> None:
        tree = ast.parse(path.read_text("utf-8"))
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in calls
        assert not any(node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))


def dotted_names(tree: ast.AST) -> list[str]:
    """List the modules that a file imports and the attributes `a.b` that it names."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [str(node.module)] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.append(f"{node.value.id}.{node.attr}")
    return found


def test_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_every_plugin_stands_in_the_contracts_and_says_what_it_is() -> None:
    root = PACKAGE.parent
    config = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    packages = {path.parent.name for path in root.glob("plugins/*/kornia_ditf_*/__init__.py")}
    assert packages
    assert packages | {"kornia_ditf"} == set(config["tool"]["importlinter"]["root_packages"])
    for folder in root.glob("plugins/*/"):
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        assert project["name"] == folder.name
        assert set(project["entry-points"]["kornia_ditf"].values()) <= packages
        assert (folder / "README.md").is_file() and list(folder.glob("tests/test_*.py"))
