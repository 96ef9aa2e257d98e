"""study.json: everything that the numbers of a finished study depend on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kornia_ditf.errors import StudyError
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run.experiments import Experiment
from kornia_ditf.study.run.preparation import Prepared, Task
from kornia_ditf.study.store.records import RECORDS, check_records
from kornia_ditf.utils import provenance
from kornia_ditf.utils.cache import is_sound, write_checked

SUMMARY = "study.json"


def write_summary(
    out: Path,
    study: Study,
    tasks: Sequence[Task],
    prepared: Sequence[Prepared],
    experiments: Sequence[Experiment],
    started: str,
) -> None:
    """Write the study, its experiments, and what it ran on.

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
        "experiments": [
            _experiment(experiment, tasks[experiment.task], prepared[experiment.task])
            for experiment in experiments
        ],
    }
    with write_checked(out / SUMMARY) as temporary:
        temporary.write_text(json.dumps(document, indent=1, default=str), "utf-8")


def read_summary(out: Path) -> dict[str, Any]:
    """Read what `write_summary` wrote.

    Raises:
        StudyError: the folder holds no finished study.
    """
    path = out / SUMMARY
    if not path.exists():
        raise StudyError(
            f"{out} holds no finished study (there is no {path.name}); "
            f"type `kornia-ditf study run FILE --out {out}`"
        )
    if not is_sound(path):
        raise StudyError(f"{path} is damaged or was changed; run the study again")
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def _experiment(experiment: Experiment, task: Task, prepared: Prepared) -> dict[str, Any]:
    protocol = asdict(experiment.protocol)
    protocol["compat"] = sorted(protocol["compat"])
    listed = experiment.listed
    return {
        "descriptor": experiment.configuration.label,
        "dataset": listed.label,
        "protocol": protocol,
        "name": experiment.configuration.name,
        "source": experiment.configuration.source,
        "settings": dict(experiment.configuration.settings),
        "identity": experiment.identity,
        "channels": experiment.channels,
        "calibrated_on": [Path(path).name for path, _ in listed.calibration]
        if experiment.channels
        else [],
        "width": prepared.members[experiment.configuration.label].width,
        "bytes_held": prepared.bytes_held,
        "device": prepared.device,
        "forward_shared_by": [member.label for member in task.group.members],
        "pairs": len(experiment.samples),
        "root": listed.choice.root,
    }
