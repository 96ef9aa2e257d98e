"""Logging a finished study to trackers of experiments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kornia_ditf.errors import DiTFError, PluginError
from kornia_ditf.registry.loggers import LoggedRun, Logger
from kornia_ditf.registry.plugins import describe_error
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.run.summary import read_finished
from kornia_ditf.utils.text import one_line


def log_study(folder: Path, loggers: Mapping[str, Logger]) -> None:
    """Log a finished study or bundle: a run for each configuration.

    Raises:
        StudyError: the folder holds no finished study.
        PluginError: a tracker fails; the message names it.
    """
    runs = list(study_runs(folder))
    for name, logger in loggers.items():
        for run in runs:
            try:
                logger(run)
            except DiTFError:
                raise
            except Exception as error:
                raise PluginError(
                    f"cannot log to {name}: {describe_error(error)}; the study in {folder} is whole"
                ) from error


def study_runs(folder: Path) -> list[LoggedRun]:
    """Return what is logged of a finished study.

    Raises:
        StudyError: the folder holds no finished study.
    """
    summary = read_finished(folder)
    settings: dict[str, dict[str, Any]] = {}
    metrics: dict[str, dict[str, float]] = {}
    for section in analyse(folder, summary):
        for row in section.rows:
            experiment = row.experiment
            settings.setdefault(
                row.descriptor,
                {
                    **{key: _simple(value) for key, value in experiment["settings"].items()},
                    **{key: _simple(experiment[key]) for key in ("name", "identity", "device")},
                    **{f"version {k}": v for k, v in summary["versions"].items()},
                    "commit": _simple(summary["commit"]),
                    "processor": summary["hardware"]["processor"],
                },
            )
            prefix = f"{one_line(section.dataset)}/{one_line(section.protocol['name'])}"
            found = {
                score.name: value.value
                for score, value in zip(section.scores, row.values, strict=True)
            } | asdict(row.cost)
            metrics.setdefault(row.descriptor, {}).update(
                (f"{prefix}/{name}", float(value))
                for name, value in found.items()
                if isinstance(value, int | float) and math.isfinite(value)
            )
    name = one_line(summary["study"]["name"])
    return [
        LoggedRun(name, one_line(label), settings[label], values)
        for label, values in metrics.items()
    ]


def _simple(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
