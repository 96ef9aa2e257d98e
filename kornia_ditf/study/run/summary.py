"""study.json: everything that the numbers of a finished study depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kornia_ditf.errors import DamagedFileError, StudyError
from kornia_ditf.study.define.results import parse_results, protocol_values
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run.experiments import Experiment
from kornia_ditf.study.store.cache import content_key
from kornia_ditf.study.store.folder import check_file, refuse_links
from kornia_ditf.study.store.records import RECORDS, count_records
from kornia_ditf.utils import provenance
from kornia_ditf.utils.cache import check_sound, is_sound, write_checked

SUMMARY = "study.json"

_MAX_SUMMARY = 100_000_000
_MAX_RECORDS = 100_000_000_000


def write_summary(
    out: Path,
    study: Study,
    experiments: Sequence[Experiment],
    failed: Sequence[Mapping[str, str]],
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
        "records": check_sound(out / RECORDS),
        "experiments": [
            {
                "descriptor": each.label,
                "dataset": each.listed.label,
                "protocol": protocol_values(each.protocol),
                "pairs": len(each.samples),
                "content": [content_key(pairs=[sample.key for sample in each.samples])],
                "root": each.listed.choice.root,
                **each.about,
                "license": each.license,
            }
            for each in experiments
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
        raise StudyError(f"{path} is not a study's ({error})") from error
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
        digest = check_sound(path)
        if digest != summary["records"]:
            raise StudyError(f"the last run in {folder} was interrupted; run it again")
        rows = count_records(path)
    except DamagedFileError as error:
        raise StudyError(f"{error}; run the study again to rebuild it") from error
    pairs = sum(each["pairs"] for each in summary["experiments"])
    if rows != pairs:
        raise StudyError(f"{path} has {rows} rows, and {folder / SUMMARY} has {pairs} pairs")
    return summary
