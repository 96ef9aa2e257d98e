"""Scored pairs in; checked Parquet parts, and at the end one sorted file of records, out.

A part is named by the digest of its bytes: it appears whole or not at all, and damage shows.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf.study.store.cache import DamagedFileError
from kornia_ditf.utils.cache import write_to_cache
from kornia_ditf.utils.files import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa

    from kornia_ditf.datasets.pairs import Pair
    from kornia_ditf.datasets.sequences import FrameSequence
    from kornia_ditf.protocols.evaluate import PairResult
    from kornia_ditf.protocols.sequences import SequenceResult

RECORDS = "records.parquet"


def part_schema() -> pa.Schema:
    """Give the columns of a part; docs/studies.md says what each holds."""
    import pyarrow as pa

    doubles = pa.list_(pa.float64())
    return pa.schema(
        [
            ("key", pa.string()),
            ("pair", pa.string()),
            ("category", pa.string()),
            ("image_a", pa.string()),
            ("image_b", pa.string()),
            ("points", pa.list_(pa.int64())),
            ("points_a", pa.list_(doubles)),
            ("found_b", pa.list_(doubles)),
            ("true_b", pa.list_(doubles)),
            ("distances", doubles),
            ("base", pa.float64()),
            ("alphas", doubles),
            ("hits", pa.list_(pa.list_(pa.bool_()))),
            ("scores", pa.map_(pa.string(), pa.float64())),
        ]
    )


def records_schema() -> pa.Schema:
    """Give the columns of the final records: which study's cell, and a part's without its key."""
    import pyarrow as pa

    cell = [pa.field(name, pa.string()) for name in ("descriptor", "dataset", "protocol")]
    return pa.schema([*cell, pa.field("index", pa.int64()), *list(part_schema())[1:]])


def pair_row(pair: Pair, result: PairResult) -> dict[str, Any]:
    """Turn a pair's result into a record, all but its key."""
    from kornia_ditf.metrics.functional import project

    scores = {} if result.corner_error is None else {"corner_error": result.corner_error}
    planar = pair.homography is not None and result.corner_error is not None
    truth = (
        project(pair.homography, result.sources) if planar else pair.points_b[result.points]  # type: ignore[arg-type]
    )
    return {
        "pair": pair.name,
        "category": pair.category,
        "image_a": str(pair.image_a),
        "image_b": str(pair.image_b),
        "points": result.points.tolist(),
        "points_a": result.sources.tolist(),
        "found_b": result.predicted.tolist(),
        "true_b": truth.tolist(),
        "distances": result.distances.tolist(),
        "base": result.base,
        "alphas": list(result.alphas),
        "hits": result.hits.tolist(),
        "scores": list(scores.items()),
    }


def sequence_row(sequence: FrameSequence, result: SequenceResult) -> dict[str, Any]:
    """Turn a sequence's result into a record, all but its key: sums over its objects."""
    j, f = (values.mean(1).sum() for values in (result.j, result.f))
    lists = ("points", "points_a", "found_b", "true_b", "distances", "alphas", "hits")
    return {
        "pair": sequence.name,
        "category": "all",
        "image_a": str(sequence.frames[0]),
        "image_b": str(sequence.frames[-1]),
        **{name: [] for name in lists},
        "base": 1.0,
        "scores": [("objects", float(len(result.j))), ("J", float(j)), ("F", float(f))],
    }


def write_part(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Keep the records of some pairs, whole or not at all.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), part_schema()), buffer, compression="zstd")
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
    import pyarrow as pa
    import pyarrow.parquet as pq

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
            path.unlink(missing_ok=True)
            damaged.append(error)
    return keys, damaged


def write_records(
    path: Path, cells: Iterator[tuple[Mapping[str, str], Path, Sequence[tuple[int, str]]]]
) -> int:
    """Write the final file from parts: cell by cell, each in the order of its pairs.

    Args:
        path: the file.
        cells: of each cell what goes into its first columns, the folder of its parts, and its
            pairs as (index in the data set, key).

    Returns:
        how many records were written.

    Raises:
        DamagedFileError: a part is damaged.
        OutputError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    rows = 0
    with atomic_write(path) as temporary:
        with pq.ParquetWriter(temporary, records_schema(), compression="zstd") as writer:
            for names, folder, pairs in cells:
                table = _cell_table(names, folder, pairs)
                writer.write_table(table)
                rows += len(table)
        digest = _file_digest(temporary)
        # A checksum that is ahead of its records says "damaged", and they are put together again.
        with atomic_write(path.with_suffix(".sha256")) as sidecar:
            sidecar.write_text(f"{digest}  {path.name}\n", "utf-8")
    return rows


def check_records(path: Path) -> str:
    """Check the final file against its checksum, and give that.

    Raises:
        DamagedFileError: it is missing or does not hold what was written.
    """
    try:
        written = path.with_suffix(".sha256").read_text("utf-8").split()
        digest = _file_digest(path)
    except (OSError, ValueError) as error:
        raise DamagedFileError(path, str(error)) from error
    if written[:1] != [digest]:
        raise DamagedFileError(path, "its checksum is wrong")
    return digest


def _cell_table(
    names: Mapping[str, str], folder: Path, pairs: Sequence[tuple[int, str]]
) -> pa.Table:
    import pyarrow as pa

    tables = [read_part(path) for path in _parts(folder)]
    whole = pa.concat_tables(tables) if tables else part_schema().empty_table()
    # A pair may have been evaluated twice, with the same result: its first row is taken.
    rows = {key: row for row, key in reversed(list(enumerate(whole.column("key").to_pylist())))}
    table = whole.take(pa.array([rows[key] for _, key in pairs], pa.int64())).drop_columns("key")
    columns = [pa.array([index for index, _ in pairs], pa.int64()), *table.columns]
    heads = [pa.array([value] * len(pairs), pa.string()) for value in names.values()]
    return pa.table([*heads, *columns], schema=records_schema())


def _parts(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.parquet") if not p.name.startswith("."))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
