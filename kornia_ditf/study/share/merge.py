"""Merging finished studies, which may have run on other machines, into one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kornia_ditf.errors import InvalidArgumentError, StudyError
from kornia_ditf.study.define.listing import dataset_labels
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report.analysis import tables_of
from kornia_ditf.study.run.costs import known_costs
from kornia_ditf.study.run.summary import SUMMARY, read_finished
from kornia_ditf.study.store.folder import locked
from kornia_ditf.study.store.records import RECORDS, RECORDS_SCHEMA, read_records
from kornia_ditf.utils.cache import check_sound, write_checked

_OF_PAIRS = ("index", "pair", "category", "image_a", "image_b")
_OF_POINTS = ("points", "points_a", "true_b", "base", "alphas")
_LOOKS = ("pictures", "viewer")
_OF_DESCRIPTORS = ("channels", "width", "identity")


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A descriptor's records on a data set, or on a part of it, and the study they come from."""

    folder: Path
    study: Mapping[str, Any]
    experiment: Mapping[str, Any]
    table: pa.Table


def merge_studies(folders: Sequence[Path], out: Path) -> Path:
    """Merge studies of other descriptors, other data sets, or other parts of the pairs.

    Studies that were split from one give its records byte for byte, in the order of the folders.

    Args:
        folders: of finished studies, or bundles.
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
        raise InvalidArgumentError("name at least two studies, and a folder for the merged one")
    studies = [read_finished(folder) for folder in folders]
    _check_settings(folders, studies)
    cells: dict[tuple[str, str], dict[str, list[tuple[Path, Any, Any]]]] = {}
    failed = {
        (each["descriptor"], each["dataset"], each["protocol"]): each
        for study in studies
        for each in study.get("failed", ())
    }
    for folder, study in zip(folders, studies, strict=True):
        for cell, rows in tables_of(study).items():
            for label, each in rows.items():
                if study.get("part") and (label, *cell) in failed:
                    continue  # without a part of the pairs there is no score
                failed.pop((label, *cell), None)
                pieces = cells.setdefault(cell, {}).setdefault(label, [])
                pieces.append((folder, study, each))
    experiments = []
    with locked(out):
        with (
            write_checked(out / RECORDS) as temporary,
            pq.ParquetWriter(temporary, RECORDS_SCHEMA, compression="zstd") as writer,
        ):
            for table in cells.values():
                first: _Piece | None = None
                for pieces in table.values():
                    joined = _join([_Piece(*each, _records(each[0], each[2])) for each in pieces])
                    first = first or joined
                    _check_experiment(first, joined)
                    writer.write_table(joined.table)
                    experiments.append(joined.experiment)
        document = {
            **studies[0],
            "study": _merged_study([study["study"] for study in studies]),
            "part": None,
            "started": min(study["started"] for study in studies),
            "finished": max(study["finished"] for study in studies),
            "records": check_sound(out / RECORDS),
            "experiments": experiments,
            "failed": list(failed.values()),
            "costs": {
                key: asdict(cost)
                for folder, study in reversed(list(zip(folders, studies, strict=True)))
                for key, cost in known_costs(folder, study).items()
            },
            "merged": [
                {**s, "study": s["study"]["name"], "experiments": None, "costs": None}
                for s in studies
            ],
        }
        with write_checked(out / SUMMARY) as temporary:
            temporary.write_text(json.dumps(document, indent=1), "utf-8")
    return out / RECORDS


def differences(a: Any, b: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Iterate over the values in which two documents differ, each with its path of keys.

    Example:
        >>> list(differences({"fit": {"side": 640}}, {"fit": {"side": 960}}))
        [('fit.side', 640, 960)]
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in {**a, **b}:
            yield from differences(a.get(key), b.get(key), f"{name}.{key}".lstrip("."))
    elif a != b:
        yield name, a, b


def settings_of(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings by which a study judges all that it evaluates."""
    return {
        "version of kornia-ditf": study["versions"]["kornia-ditf"],
        "cache_dtype": study["study"]["cache_dtype"],
        "report": {k: v for k, v in study["study"]["report"].items() if k not in _LOOKS},
    }


def incomparable(
    a: Mapping[str, Any], b: Mapping[str, Any], of_a: Mapping[str, Any], of_b: Mapping[str, Any]
) -> str:
    """Return why two experiments did not score the same pairs in the same way; empty if they did.

    Args:
        a: as a summary has it.
        b: the other.
        of_a: columns of its records, one at least.
        of_b: the same columns of the other.
    """
    for name, left, right in differences(a["protocol"], b["protocol"], "protocol"):
        return f"{name} is {left!r} and {right!r}"
    counts = [len(next(iter(columns.values()))) for columns in (of_a, of_b)]
    if counts[0] != counts[1]:
        return f"pairs are {counts[0]} and {counts[1]}"
    for name, column in of_a.items():
        if column != of_b[name]:
            return f"{name} of the pairs differs"
    # Digests of pairs and images, one for each part of the pairs that was merged.
    first, second = (each.get("content", ()) for each in (a, b))
    if first and len(first) == len(second) and first != second:
        return "the images or annotations of the pairs differ"
    return ""


def _check_settings(folders: Sequence[Path], studies: Sequence[Mapping[str, Any]]) -> None:
    """Check that studies judge alike, and that labels mean the same in all."""
    known: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for folder, study in zip(folders, studies, strict=True):
        where = f"{folders[0]} and {folder}"
        _check_equal(settings_of(studies[0]), settings_of(study), where)
        for each in study["experiments"]:
            other, first = known.setdefault(each["descriptor"], (folder, each))
            for name in ("name", "settings"):
                where = f"{each['descriptor']!r}, in {other} and {folder}"
                _check_equal(first[name], each[name], where, name)


def _join(pieces: Sequence[_Piece]) -> _Piece:
    """Join the parts of one descriptor's records, in their order."""
    first = pieces[0]
    pieces = _ordered(pieces)
    if len(pieces) == 1:
        return first
    for piece in pieces:
        where = _where(first, piece)
        _check_equal(first.experiment["protocol"], piece.experiment["protocol"], where, "protocol")
        for name in _OF_DESCRIPTORS:
            _check_equal(first.experiment[name], piece.experiment[name], where, name)
    tables = [piece.table for piece in pieces]
    if not first.study.get("part"):
        _check_disjoint(pieces)
        tables = _numbered(tables)
    whole = pa.concat_tables(tables).combine_chunks()
    experiment = {
        **first.experiment,
        "pairs": len(whole),
        "content": [each for piece in pieces for each in piece.experiment.get("content", ())],
        "device": ", ".join(dict.fromkeys(piece.experiment["device"] for piece in pieces)),
    }
    return _Piece(first.folder, {**first.study, "part": None}, experiment, whole)


def _check_disjoint(pieces: Sequence[_Piece]) -> None:
    owners: dict[tuple[str, ...], _Piece] = {}
    for piece in pieces:
        for pair in zip(*(piece.table[name].to_pylist() for name in _OF_PAIRS[1:]), strict=True):
            owner = owners.setdefault(pair, piece)
            if owner is not piece:
                raise StudyError(
                    f"cannot merge {_where(owner, piece)}: both hold "
                    f"{piece.experiment['descriptor']!r} on the pair {pair[0]!r}"
                )


def _numbered(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Sort the pairs of one list, and number those of several lists consecutively."""
    indices = [table["index"].to_pylist() for table in tables]
    if len(set().union(*indices)) == sum(len(set(each)) for each in indices):
        return [pa.concat_tables(tables).sort_by("index")]
    place, first, numbered = tables[0].column_names.index("index"), 0, []
    for table, own in zip(tables, indices, strict=True):
        column = pa.array([first + index for index in own], pa.int64())
        numbered.append(table.set_column(place, table.field(place), column))
        first += max(own) + 1
    return numbered


def _ordered(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Sort parts, and check that none is missing or duplicated."""
    parts = [piece.study.get("part") for piece in pieces]
    if not any(parts):
        return list(pieces)
    label, dataset = (pieces[0].experiment[name] for name in ("descriptor", "dataset"))
    folders = ", ".join(str(piece.folder) for piece in pieces)
    count = max(part[1] for part in parts if part)
    if any(not part or part[1] != count for part in parts):
        held = " and ".join("all" if not part else f"part {part[0]}/{part[1]}" for part in parts)
        raise StudyError(f"cannot merge {folders}: they hold {held} of the pairs of {dataset!r}")
    found = [part[0] for part in parts if part]
    for number in range(1, count + 1):
        if found.count(number) != 1:
            state = "missing" if number not in found else "there twice"
            raise StudyError(
                f"cannot merge {folders}: part {number}/{count} of {label!r} on {dataset!r} is "
                f"{state}; name one folder for each part"
            )
    return sorted(pieces, key=lambda piece: piece.study["part"])


def _check_experiment(a: _Piece, b: _Piece) -> None:
    # Points are matches where they are not given, and each contestant's own.
    given = b.experiment["protocol"]["task"] == "keypoints"
    names = _OF_PAIRS + _OF_POINTS if given else _OF_PAIRS
    columns = ({name: each.table[name] for name in names} for each in (a, b))
    reason = incomparable(a.experiment, b.experiment, *columns)
    if reason:
        raise StudyError(f"cannot merge {_where(a, b)}: {reason}")


def _where(a: _Piece, b: _Piece) -> str:
    return (
        f"{b.experiment['dataset']}, {b.experiment['protocol']['name']}, in {a.folder} and "
        f"{b.folder}"
    )


def _check_equal(a: Any, b: Any, where: str, name: str = "") -> None:
    for path, left, right in differences(a, b, name):
        raise StudyError(f"cannot merge {where}: {path} is {left!r} and {right!r}")


def _records(folder: Path, experiment: Mapping[str, Any]) -> pa.Table:
    table = read_records(folder / RECORDS, experiment, RECORDS_SCHEMA.names)
    return table.cast(RECORDS_SCHEMA).combine_chunks()


def _merged_study(studies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    datasets: dict[str, Any] = {}
    for study in studies:
        labels = dataset_labels(Study.model_validate(study))
        datasets = {**dict(zip(labels, study["datasets"], strict=True)), **datasets}
    return {
        **studies[0],
        "name": " + ".join(dict.fromkeys(study["name"] for study in studies)),
        "descriptors": _unique(each for study in studies for each in study["descriptors"]),
        "matchers": _unique(each for study in studies for each in study.get("matchers", ())),
        "datasets": list(datasets.values()),
        "reported": _unique(each for study in studies for each in study["reported"]),
    }


def _unique(values: Iterator[Any]) -> list[Any]:
    return list({json.dumps(each, sort_keys=True): each for each in values}.values())
