"""Records of scored pairs, in Parquet: checked parts, then one sorted file.

A part is named by the digest of its bytes: it appears whole or not at all, and damage shows.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from kornia_ditf.errors import DamagedFileError
from kornia_ditf.utils.cache import write_checked, write_to_cache
from kornia_ditf.utils.text import byte_size

if TYPE_CHECKING:
    from kornia_ditf.datasets.pairs import Pair
    from kornia_ditf.datasets.sequences import FrameSequence
    from kornia_ditf.protocols.result import PairResult
    from kornia_ditf.protocols.sequences import SequenceResult

RECORDS = "records.parquet"

_MAX_GROUP = 4_000_000_000  # bytes of one experiment's records, in memory


_DOUBLES = pa.list_(pa.float64())
_COLUMNS = [
    ("pair", pa.string()),
    ("category", pa.string()),
    ("image_a", pa.string()),
    ("image_b", pa.string()),
    ("points", pa.list_(pa.int64())),
    ("points_a", pa.list_(_DOUBLES)),
    ("found_b", pa.list_(_DOUBLES)),
    ("true_b", pa.list_(_DOUBLES)),
    ("distances", _DOUBLES),
    ("base", pa.float64()),
    ("alphas", _DOUBLES),
    ("hits", pa.list_(pa.list_(pa.bool_()))),
    ("scores", pa.map_(pa.string(), pa.float64())),
]
PART_SCHEMA = pa.schema([("key", pa.string()), *_COLUMNS])
"""The columns of a part; docs/studies.md explains them."""

_LABELS = [(name, pa.string()) for name in ("descriptor", "dataset", "protocol")]
RECORDS_SCHEMA = pa.schema([*_LABELS, ("index", pa.int64()), *_COLUMNS])
"""The columns of the final records: those of a part, with labels instead of the key."""


def pair_row(pair: Pair, result: PairResult, root: Path) -> dict[str, Any]:
    """Return a pair's result as a record without its key; `root` is the data set's folder."""
    return {
        "pair": _utf8(pair.name),
        "category": _utf8(pair.category),
        "image_a": image_name(pair.image_a, root),
        "image_b": image_name(pair.image_b, root),
        "points": result.points.tolist(),
        "points_a": result.sources.tolist(),
        "found_b": result.predicted.tolist(),
        "true_b": result.truth.tolist(),
        "distances": result.distances.tolist(),
        "base": result.base,
        "alphas": list(result.alphas),
        "hits": result.hits.tolist(),
        "scores": list(result.scores.items()),
    }


def sequence_row(sequence: FrameSequence, result: SequenceResult, root: Path) -> dict[str, Any]:
    """Return a sequence's result, summed over its objects, as a record without its key."""
    j, f = (values.mean(1).sum() for values in (result.j, result.f))
    lists = ("points", "points_a", "found_b", "true_b", "distances", "alphas", "hits")
    return {
        "pair": _utf8(sequence.name),
        "category": "all",
        "image_a": image_name(sequence.frames[0], root),
        "image_b": image_name(sequence.frames[-1], root),
        **{name: [] for name in lists},
        "base": 1.0,
        "scores": [("objects", float(len(result.j))), ("J", float(j)), ("F", float(f))],
    }


def image_name(path: Path, root: Path) -> str:
    """Name an image by its path below the data set's folder; one from elsewhere by its file."""
    inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return _utf8(inside.as_posix())


def _utf8(text: str) -> str:
    # File names and JSON may hold lone surrogates, which Parquet's strings cannot.
    return text.encode("utf-8", "backslashreplace").decode()


def write_part(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the records of some pairs atomically.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), PART_SCHEMA), buffer, compression="zstd")
    content = buffer.getvalue()
    path = folder / f"{_digest(content)}.parquet"
    with write_to_cache(path) as temporary:
        temporary.write_bytes(content)
    return path


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a part and check it against its name.

    Raises:
        DamagedFileError: it does not hold what was written.
    """
    try:
        content = path.read_bytes()
        if _digest(content) != path.stem:
            raise DamagedFileError(path, "its checksum is wrong")
        return pq.read_table(io.BytesIO(content), columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DamagedFileError(path, str(error)) from error


def done_keys(folder: Path) -> tuple[set[str], list[DamagedFileError]]:
    """List the pairs that the parts of a folder hold, and the parts that are damaged.

    Damaged parts are removed, so that their pairs are evaluated again.
    """
    keys: set[str] = set()
    damaged: list[DamagedFileError] = []
    for path in _parts(folder):
        try:
            keys.update(read_part(path, ["key"]).column("key").to_pylist())
        except DamagedFileError as error:
            error.remove()
            damaged.append(error)
    return keys, damaged


def write_records(
    path: Path, experiments: Iterable[tuple[Mapping[str, str], Path, Sequence[tuple[int, str]]]]
) -> None:
    """Write the final file from parts: experiment by experiment, each in the order of its pairs.

    Args:
        path: the file.
        experiments: of each the values of its first columns, the folder of its parts, and its
            pairs as (index in the data set, key).

    Raises:
        DamagedFileError: a part is damaged.
        OutputError: the file cannot be written.
    """
    with (
        write_checked(path) as temporary,
        pq.ParquetWriter(temporary, RECORDS_SCHEMA, compression="zstd") as writer,
    ):
        for names, folder, pairs in experiments:
            writer.write_table(_experiment_table(names, folder, pairs))


def count_records(path: Path) -> int:
    """Check the columns and sizes of a final file, from wherever it is, and count its rows.

    Raises:
        DamagedFileError: it is not a file of records, or a part of it does not fit memory.
    """
    try:
        with pq.ParquetFile(path) as file:
            found, metadata = file.schema_arrow, file.metadata
    except (OSError, pa.ArrowException) as error:
        raise DamagedFileError(path, str(error)) from error
    for field in RECORDS_SCHEMA:
        if field.name not in found.names or found.field(field.name).type != field.type:
            raise DamagedFileError(path, f"its column {field.name} is missing or not {field.type}")
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    if max((group.total_byte_size for group in groups), default=0) > _MAX_GROUP:
        raise DamagedFileError(path, f"a part of it has more than {byte_size(_MAX_GROUP)}")
    rows: int = metadata.num_rows
    return rows


def read_records(
    path: Path, experiment: Mapping[str, Any], columns: Sequence[str] | None = None
) -> pa.Table:
    """Read the records of an experiment.

    Args:
        path: the final file.
        experiment: as a summary has it.
        columns: those that are wanted; None is all.
    """
    chosen = [(name, "==", experiment[name]) for name in ("descriptor", "dataset")]
    chosen.append(("protocol", "==", experiment["protocol"]["name"]))
    names = None if columns is None else list(columns)
    return pq.read_table(path, columns=names, filters=chosen, partitioning=None)


def copy_records(path: Path, target: Path, labels: Mapping[str, Mapping[str, str]]) -> None:
    """Copy a final file, with other labels: by column, the new label of each."""
    if all(old == new for renamed in labels.values() for old, new in renamed.items()):
        shutil.copyfile(path, target)
        return
    with (
        pq.ParquetFile(path) as file,
        pq.ParquetWriter(target, RECORDS_SCHEMA, compression="zstd") as writer,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            for name, renamed in labels.items():
                column = pa.array([renamed[old] for old in table[name].to_pylist()], pa.string())
                place = table.column_names.index(name)
                table = table.set_column(place, table.field(place), column)
            writer.write_table(table)


def _experiment_table(
    names: Mapping[str, str], folder: Path, pairs: Sequence[tuple[int, str]]
) -> pa.Table:
    tables = [read_part(path) for path in _parts(folder)]
    whole = pa.concat_tables(tables) if tables else PART_SCHEMA.empty_table()
    # A pair may have been evaluated twice, with the same result: its first row is taken.
    rows = {key: row for row, key in reversed(list(enumerate(whole.column("key").to_pylist())))}
    table = whole.take(pa.array([rows[key] for _, key in pairs], pa.int64())).drop_columns("key")
    columns = [pa.array([index for index, _ in pairs], pa.int64()), *table.columns]
    heads = [pa.array([value] * len(pairs), pa.string()) for value in names.values()]
    return pa.table([*heads, *columns], schema=RECORDS_SCHEMA)


def _parts(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.parquet") if not p.name.startswith("."))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]
