"""study.json: everything that the numbers of a finished study depend on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kornia_ditf.errors import DamagedFileError, StudyError
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.registry.lookup import find_descriptor
from kornia_ditf.study.define.results import parse_results, protocol_values
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run.contestants import MatcherExperiment, matcher_values
from kornia_ditf.study.run.experiments import Experiment
from kornia_ditf.study.run.preparation import Prepared, Task
from kornia_ditf.study.store.cache import content_key
from kornia_ditf.study.store.folder import check_file, refuse_links
from kornia_ditf.study.store.records import RECORDS, check_records, count_records
from kornia_ditf.utils import provenance
from kornia_ditf.utils.cache import is_sound, write_checked

SUMMARY = "study.json"

_MAX_SUMMARY = 100_000_000
_MAX_RECORDS = 100_000_000_000


def write_summary(
    out: Path,
    study: Study,
    tasks: Sequence[Task],
    prepared: Sequence[Prepared],
    experiments: Sequence[Experiment | MatcherExperiment],
    failed: Sequence[dict[str, str]],
    started: str,
    part: tuple[int, int] | None = None,
) -> None:
    """Write the study, its experiments, the cells that failed, and what it ran on.

    Raises:
        OutputError: the file cannot be written.
    """
    document = {
        "study": study.model_dump(mode="json"),
        "part": part,
        "started": started,
        "finished": provenance.now(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
        "records": check_records(out / RECORDS),
        "experiments": [
            {
                **_result(experiment),
                **(
                    matcher_values(experiment)
                    if isinstance(experiment, MatcherExperiment)
                    else _values(experiment, tasks[experiment.task], prepared[experiment.task])
                ),
            }
            for experiment in experiments
        ],
        "failed": list(failed),
    }
    with write_checked(out / SUMMARY) as temporary:
        temporary.write_text(json.dumps(document, indent=1, default=str), "utf-8")


def read_summary(out: Path) -> dict[str, Any]:
    """Read and check what `write_summary` wrote, here or elsewhere.

    Raises:
        StudyError: the folder holds no finished study, or its summary is damaged.
    """
    path = out / SUMMARY
    check_file(path, _MAX_SUMMARY)
    check_file(path.with_suffix(".sha256"), _MAX_SUMMARY)
    if not path.exists():
        raise StudyError(
            f"{out} holds no finished study (there is no {path.name}); "
            f"type `kornia-ditf study run FILE --out {out}`"
        )
    if not is_sound(path):
        raise StudyError(f"{path} is damaged or was changed; run the study again")
    try:
        text = path.read_text("utf-8")
    except ValueError as error:
        raise StudyError(f"{path} is no study's ({error})") from error
    return parse_results(text, str(path))


def read_finished(folder: Path) -> dict[str, Any]:
    """Read the summary of a study, or bundle, whose records are whole and belong to it.

    Raises:
        StudyError: it is not finished, its files are damaged, or they are not a study's.
        OutputError: a link in it leads out of it.
    """
    summary = read_summary(folder)
    refuse_links(folder)
    path = folder / RECORDS
    try:
        check_file(path, _MAX_RECORDS)
        check_file(path.with_suffix(".sha256"), _MAX_SUMMARY)
        digest = check_records(path)
        if digest != summary["records"]:
            raise StudyError(f"the last run in {folder} was stopped before its end; run it again")
        rows = count_records(path)
    except DamagedFileError as error:
        raise StudyError(f"{error}; run the study again, it will be put together anew") from error
    pairs = sum(each["pairs"] for each in summary["experiments"])
    if rows != pairs:
        raise StudyError(f"{path} has {rows} rows, and {folder / SUMMARY} has {pairs} pairs")
    return summary


def _result(experiment: Experiment | MatcherExperiment) -> dict[str, Any]:
    label, dataset, _ = experiment.cell
    return {
        "descriptor": label,
        "dataset": dataset,
        "protocol": protocol_values(experiment.protocol),
        "pairs": len(experiment.samples),
        "content": [content_key(pairs=[sample.key for sample in experiment.samples])],
        "root": experiment.listed.choice.root,
    }


def _values(experiment: Experiment, task: Task, prepared: Prepared) -> dict[str, Any]:
    configuration = experiment.configuration
    settings = dict(configuration.settings)
    if experiment.pca:
        settings["pca"] = experiment.pca
    calibration = experiment.listed.calibration if experiment.channels else ()
    return {
        "name": configuration.name,
        "source": configuration.source,
        "settings": settings,
        "identity": experiment.identity,
        "channels": experiment.channels,
        "calibrated_on": [Path(path).name for path, _ in calibration],
        "width": prepared.members[configuration.label].width,
        "bytes_held": prepared.bytes_held,
        "device": prepared.device,
        "forward_shared_by": [member.label for member in task.group.members],
        "license": find_descriptor(configuration.name, **hub_options(settings)).license,
    }
