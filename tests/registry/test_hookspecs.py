from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from kornia_ditf.registry import hookspecs

HOOKS = [name for name in vars(hookspecs) if name.startswith("register_")]
PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_heading_and_its_exact_signature_in_the_docs(name: str) -> None:
    signature = str(inspect.signature(getattr(hookspecs, name)))
    page = PAGE.read_text()
    assert f"## `{name}`" in page or f"## {name}" in page
    assert f"{name}{signature}".replace("'", "") in page


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_test(name: str) -> None:
    tests = (path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert any(f"def {name}" in text for text in tests)
