"""A study is logged where somebody asks for it, and a tracker that fails loses nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from plugin_entries import Entry

from kornia_ditf import LoggedRun, LoggerSpec, hookimpl
from kornia_ditf.errors import InvalidArgumentError, MissingExtraError, PluginError
from kornia_ditf.registry import lookup
from kornia_ditf.registry.loggers import load_logger
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.run.summary import read_summary
from kornia_ditf.study.share.logging import log_study, study_runs


class Recorder(ModuleType):
    """Stands for a tracker's module, and keeps its calls."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*given: Any, **named: Any) -> Any:
            self.calls.append((name, given, named))
            return SimpleNamespace(__enter__=None) if name != "start_run" else _Run()

        return call


class _Run:
    def __enter__(self) -> None: ...

    def __exit__(self, *raised: object) -> None: ...


def test_runs_hold_the_scores_of_the_report(studies: Any) -> None:
    out = studies("whole")
    (section,) = analyse(out, read_summary(out))
    runs = study_runs(out)
    assert [run.name for run in runs] == [row.descriptor for row in section.rows]
    for run, row in zip(runs, section.rows, strict=True):
        assert run.metrics["folder/plain/PCK@0.1 per image"] == row.values[0].value
        assert run.metrics["folder/plain/seconds_per_pair"] > 0
        assert run.settings["block"] == row.experiment["settings"]["block"]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_run_is_begun_logged_and_finished(
    studies: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Recorder(name)
    monkeypatch.setitem(sys.modules, name, tracker)
    log_study(studies("whole"), {name: load_logger(name)})
    assert [call[0] for call in tracker.calls] == ["init", "log", "finish"] * 4
    assert tracker.calls[0][2]["project"] == "small"
    assert tracker.calls[0][2]["config"]["block"] == 1


def test_mlflow_gets_names_that_it_takes(studies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Recorder("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", tracker)
    log_study(studies("whole"), {"mlflow": load_logger("mlflow")})
    (metrics,) = next(given for name, given, _ in tracker.calls if name == "log_metrics")
    assert "folder/plain/PCK_0.1 per image" in metrics and not any("@" in key for key in metrics)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match="type `pip install wandb`"):
        load_logger("wandb")
    with pytest.raises(InvalidArgumentError, match="got 'wanb'; did you mean 'wandb'"):
        load_logger("wanb")


def test_a_plugins_logger_is_found_and_one_that_raises_is_named(
    studies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[LoggedRun] = []
    module = ModuleType("plugin")

    def fail(run: LoggedRun) -> None:
        raise RuntimeError("no network")

    @hookimpl
    def register_loggers() -> list[LoggerSpec]:
        return [
            LoggerSpec(name="list", load=lambda: logged.append, source="a test"),
            LoggerSpec(name="broken", load=lambda: fail, source="a test"),
        ]

    module.register_loggers = register_loggers  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "kornia_ditf.registry.plugins.entry_points", lambda **_: [Entry("mine", module)]
    )
    lookup.forget_plugins()
    try:
        log_study(studies("whole"), {"list": load_logger("list")})
        assert len(logged) == 4
        with pytest.raises(PluginError, match="cannot log to broken: RuntimeError: no network"):
            log_study(studies("whole"), {"broken": load_logger("broken")})
    finally:
        monkeypatch.undo()
        lookup.forget_plugins()
