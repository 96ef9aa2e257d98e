"""Trackers of experiments that a study's results can be logged to; none is used unless named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from kornia_ditf.errors import DiTFError, PluginError
from kornia_ditf.registry.catalogue import Catalogue
from kornia_ditf.registry.plugins import describe_error
from kornia_ditf.utils.checks import check_one_of, check_spec
from kornia_ditf.utils.extras import import_extra


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """Settings and scores of one configuration of a study, for a tracker.

    Args:
        study: name of the study.
        name: label of the configuration.
        settings: its settings, identity, versions and hardware: texts and numbers.
        metrics: scores as `DATA SET/PROTOCOL/SCORE`, and seconds per image and pair.
    """

    study: str
    name: str
    settings: Mapping[str, str | int | float | bool]
    metrics: Mapping[str, float]


Logger: TypeAlias = Callable[[LoggedRun], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggerSpec:
    """Description of an experiment tracker.

    Args:
        name: what the user types after `--log`.
        load: called without arguments; imports the tracker and returns what logs a run.
        source: the tracker's address.
    """

    name: str
    load: Callable[[], Logger]
    source: str

    def __post_init__(self) -> None:
        check_spec(self, ("name", "source"))


def _load(package: str, log: Callable[[Any, LoggedRun], None]) -> Logger:
    return partial(log, import_extra(package, f"logging to {package} needs it", package))


def _log_by_init(tracker: Any, run: LoggedRun) -> None:
    """Log to W&B, or to Trackio, which has the same interface."""
    project = re.sub(r"[/\\#?%:]", "-", run.study)[:128]
    tracker.init(project=project, name=run.name, config=dict(run.settings))
    try:
        tracker.log(dict(run.metrics))
    finally:
        tracker.finish()


def _log_to_mlflow(mlflow: Any, run: LoggedRun) -> None:
    mlflow.set_experiment(run.study)
    with mlflow.start_run(run_name=run.name):
        mlflow.log_params(dict(run.settings))
        names = {name: re.sub(r"[^\w\-. /]", "_", name) for name in run.metrics}
        mlflow.log_metrics({names[name]: value for name, value in run.metrics.items()})


_SPECS = (
    LoggerSpec(
        name="trackio",
        load=partial(_load, "trackio", _log_by_init),
        source="https://github.com/gradio-app/trackio",
    ),
    LoggerSpec(name="wandb", load=partial(_load, "wandb", _log_by_init), source="https://wandb.ai"),
    LoggerSpec(
        name="mlflow", load=partial(_load, "mlflow", _log_to_mlflow), source="https://mlflow.org"
    ),
)
CATALOGUE = Catalogue(_SPECS, {"register_loggers": LoggerSpec})


def list_loggers() -> dict[str, LoggerSpec]:
    """List the trackers by name: built-in ones, then plugins'; imports none.

    Example:
        >>> list(list_loggers())[:3]
        ['trackio', 'wandb', 'mlflow']
    """
    return CATALOGUE.specs()


def load_logger(name: str) -> Logger:
    """Load a tracker by its name.

    Raises:
        InvalidArgumentError: there is no such tracker.
        MissingExtraError: its package is not installed.
        PluginError: it fails when it is loaded.
    """
    found = list_loggers()
    check_one_of("--log", name, found)
    try:
        return found[name].load()
    except DiTFError:
        raise
    except Exception as error:
        raise PluginError(f"cannot load the tracker {name!r}: {describe_error(error)}") from error
