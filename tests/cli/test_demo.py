"""`kornia-ditf demo`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from typer.testing import Result


def test_an_unknown_descriptor_is_named_before_a_page_is_served(run: Callable[..., Result]) -> None:
    result = run("demo", "--descriptor", "nanno")
    assert result.exit_code == 4 and "nano" in result.stderr


def test_without_gradio_the_command_that_installs_it_is_said(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "kornia_ditf.demo.app", raising=False)
    result = run("demo")
    assert result.exit_code == 1
    assert "pip install 'kornia-ditf[demo]'" in result.stderr


def test_an_address_that_cannot_be_listened_on_is_said(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = pytest.importorskip("kornia_ditf.demo.app")
    page = SimpleNamespace(launch=Mock(side_effect=OSError("port 80 is taken")))
    monkeypatch.setattr(app, "build", lambda *_, **__: page)
    result = run("demo", "--port", 80)
    assert result.exit_code == 2
    assert "cannot listen on 127.0.0.1 (port 80 is taken)" in result.stderr
