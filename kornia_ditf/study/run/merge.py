"""Merging finished studies, which may have run on other machines, into one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError, StudyError
from kornia_ditf.study.define.listing import dataset_labels
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.run.costs import CostLog
from kornia_ditf.study.run.summary import SUMMARY, read_summary
from kornia_ditf.study.store.folder import locked
from kornia_ditf.study.store.records import RECORDS, check_records, records_schema
from kornia_ditf.utils.cache import write_checked
from kornia_ditf.utils.files import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN_APART = ("descriptor", "found_b", "distances", "hits", "scores")


def merge_studies(folders: Sequence[Path], out: Path) -> Path:
    """Merge studies that evaluated different descriptors or data sets.

    Rows are in the order of the folders. Two halves of a study, split by its descriptors, give
    the records of the undivided study byte for byte.

    Args:
        folders: of finished studies.
        out: folder of the merged study, which must not hold one.

    Returns:
        the merged file of records.

    Raises:
        InvalidArgumentError: fewer than two folders, or `out` holds a study.
        StudyError: a study is not finished or damaged, or they cannot be compared; the message
            names the parameter that differs.
        OutputError: `out` cannot be written.
    """
    if len(folders) < 2 or (out / SUMMARY).exists():
        raise InvalidArgumentError("name two studies or more, and a folder for the merged one")
    import pyarrow.parquet as pq

    summaries = [_read(folder) for folder in folders]
    for folder, summary in zip(folders[1:], summaries[1:], strict=True):
        _check_settings(folders[0], summaries[0], folder, summary)
    merged: dict[tuple[str, str], list[tuple[Path, Mapping[str, Any]]]] = {}
    for folder, summary in zip(folders, summaries, strict=True):
        for each in summary["experiments"]:
            merged.setdefault((each["dataset"], each["protocol"]["name"]), []).append(
                (folder, each)
            )
    with locked(out):
        with (
            write_checked(out / RECORDS) as temporary,
            pq.ParquetWriter(temporary, records_schema(), compression="zstd") as writer,
        ):
            for experiments in merged.values():
                first: pa.Table | None = None
                for folder, each in experiments:
                    table = _records(folder, each)
                    first = table if first is None else first
                    _check_experiment(experiments[0], (folder, each), first, table)
                    writer.write_table(table)
        with atomic_write(CostLog(out).path) as temporary:
            logs = [CostLog(folder).path for folder in folders]
            temporary.write_bytes(b"\n".join(log.read_bytes() for log in logs if log.exists()))
        document = {
            **summaries[0],
            "study": _merged_study([summary["study"] for summary in summaries]),
            "started": min(summary["started"] for summary in summaries),
            "finished": max(summary["finished"] for summary in summaries),
            "records": check_records(out / RECORDS),
            "experiments": [each for rows in merged.values() for _, each in rows],
            "merged": [{**s, "study": s["study"]["name"], "experiments": None} for s in summaries],
        }
        with write_checked(out / SUMMARY) as temporary:
            temporary.write_text(json.dumps(document, indent=1), "utf-8")
    return out / RECORDS


def _read(folder: Path) -> dict[str, Any]:
    summary = read_summary(folder)
    try:
        digest = check_records(folder / RECORDS)
    except DamagedFileError as error:
        raise StudyError(f"{error}; run the study again") from error
    if digest != summary["records"]:
        raise StudyError(f"the last run in {folder} was stopped before its end; run it again")
    return summary


def _check_settings(
    folder_a: Path, a: Mapping[str, Any], folder_b: Path, b: Mapping[str, Any]
) -> None:
    """Check that two studies judge alike."""
    settings_a, settings_b = (
        {
            "version of kornia-ditf": each["versions"]["kornia-ditf"],
            "cache_dtype": each["study"]["cache_dtype"],
            **{f"report.{name}": value for name, value in each["study"]["report"].items()},
        }
        for each in (a, b)
    )
    _check_equal(settings_a, settings_b, f"{folder_a} and {folder_b}")


def _check_experiment(
    a: tuple[Path, Mapping[str, Any]],
    b: tuple[Path, Mapping[str, Any]],
    first: pa.Table,
    table: pa.Table,
) -> None:
    """Check that two experiments scored the same pairs in the same way."""
    where = f"{b[1]['dataset']}, {b[1]['protocol']['name']}, in {a[0]} and {b[0]}"
    _check_equal(a[1]["protocol"], b[1]["protocol"], where)
    if a[1] is not b[1] and a[1]["descriptor"] == b[1]["descriptor"]:
        raise StudyError(f"cannot merge {where}: both hold {b[1]['descriptor']!r}")
    if len(first) != len(table):
        raise StudyError(f"cannot merge {where}: pairs are {len(first)} and {len(table)}")
    shared = [name for name in table.column_names if name not in _SHOWN_APART]
    for name in shared:
        # Matches of planar pairs, and so their truths, are each descriptor's own.
        if b[1]["protocol"]["task"] != "homography" and first[name] != table[name]:
            raise StudyError(f"cannot merge {where}: {name} of the pairs differs")


def _check_equal(a: Mapping[str, Any], b: Mapping[str, Any], where: str) -> None:
    for name in {**a, **b}:
        if a.get(name) != b.get(name):
            raise StudyError(f"cannot merge {where}: {name} is {a.get(name)!r} and {b.get(name)!r}")


def _records(folder: Path, experiment: Mapping[str, Any]) -> pa.Table:
    import pyarrow.parquet as pq

    labels = {name: experiment[name] for name in ("descriptor", "dataset")}
    labels["protocol"] = experiment["protocol"]["name"]
    chosen = [(name, "==", value) for name, value in labels.items()]
    table = pq.read_table(folder / RECORDS, filters=chosen)
    return table.cast(records_schema()).combine_chunks()


def _merged_study(studies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    datasets: dict[str, Any] = {}
    for study in studies:
        labels = dataset_labels(Study.model_validate(study))
        datasets = {**dict(zip(labels, study["datasets"], strict=True)), **datasets}
    return {
        **studies[0],
        "name": " + ".join(dict.fromkeys(study["name"] for study in studies)),
        "descriptors": [each for study in studies for each in study["descriptors"]],
        "datasets": list(datasets.values()),
        "reported": [each for study in studies for each in study["reported"]],
    }
