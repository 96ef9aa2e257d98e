"""A study that ran in; one JSON file with all that its numbers depend on out, for reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kornia_ditf.errors import StudyError
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run.experiments import Cell
from kornia_ditf.study.run.preparation import Prepared, Task
from kornia_ditf.study.store.records import RECORDS, check_records
from kornia_ditf.utils import provenance
from kornia_ditf.utils.files import atomic_write

SUMMARY = "study.json"


def write_summary(
    out: Path,
    study: Study,
    tasks: Sequence[Task],
    prepared: Sequence[Prepared],
    cells: Sequence[Cell],
    started: str,
) -> None:
    """Write down what a study was and what it ran on.

    Raises:
        OutputError: the file cannot be written.
    """
    document = {
        "study": study.model_dump(mode="json"),
        "started": started,
        "finished": provenance.now(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
        "records": check_records(out / RECORDS),
        "cells": [_cell(cell, tasks[cell.task], prepared[cell.task]) for cell in cells],
    }
    with atomic_write(out / SUMMARY) as temporary:
        temporary.write_text(json.dumps(document, indent=1, default=str), "utf-8")


def read_summary(out: Path) -> dict[str, Any]:
    """Read what `write_summary` wrote.

    Raises:
        StudyError: the folder holds no finished study.
    """
    path = out / SUMMARY
    try:
        document: dict[str, Any] = json.loads(path.read_text("utf-8"))
        document["cells"][0]["identity"]
    except FileNotFoundError as error:
        raise StudyError(
            f"{out} holds no finished study (there is no {path.name}); "
            f"type `kornia-ditf study run FILE --out {out}`"
        ) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StudyError(f"{path} is damaged ({error}); run the study again") from error
    return document


def _cell(cell: Cell, task: Task, prepared: Prepared) -> dict[str, Any]:
    protocol = asdict(cell.protocol)
    protocol["compat"] = sorted(protocol["compat"])
    listed = cell.listed
    return {
        "descriptor": cell.configuration.label,
        "dataset": listed.label,
        "protocol": protocol,
        "name": cell.configuration.name,
        "source": cell.configuration.source,
        "settings": dict(cell.configuration.settings),
        "identity": cell.identity,
        "channels": cell.channels,
        "calibrated_on": [Path(path).name for path, _ in listed.calibration]
        if cell.channels
        else [],
        "width": prepared.members[cell.configuration.label].width,
        "bytes_held": prepared.bytes_held,
        "device": prepared.device,
        "forward_shared_by": [member.label for member in task.group.members],
        "pairs": len(cell.items),
        "root": listed.choice.root,
    }
