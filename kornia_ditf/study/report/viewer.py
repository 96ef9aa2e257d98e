"""What the viewer of a report shows: pairs, and each configuration's answer to every point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kornia_ditf.study.report.analysis import Section
from kornia_ditf.study.report.pictures import PairImages
from kornia_ditf.study.store.records import read_records
from kornia_ditf.utils.text import one_line

_CONTESTANTS = 12
_POINTS = 100


def view_pairs(path: Path, section: Section, images: PairImages, count: int) -> dict[str, Any]:
    """Collect the pairs on which the configurations of a section differ most.

    Args:
        path: the file of records.
        section: of the report.
        images: reads the pairs' images.
        count: number of pairs.

    Returns:
        for JSON: `names` of at most 12 configurations, the best ones; `pairs`, each with `name`,
        places of its `images`, and for each configuration `answers`: rows of x and y in A, found
        in B, true in B, and whether it is right at the first threshold; `images` with `size`
        (width, height) in their own pixels and `src`, null where one cannot be read or the page
        would grow too large. Empty where the protocol has no points.
    """
    best = sorted(section.rows, key=lambda row: -_or_zero(row.values[0].value))[:_CONTESTANTS]
    names = [row.descriptor for row in section.rows if row in best]
    labels = {"dataset": section.dataset, "protocol": section.protocol["name"]}
    shares = np.stack(
        [
            _shares(read_records(path, columns=["hits"], descriptor=name, **labels).to_pylist())
            for name in names
        ]
    )
    with_points = np.flatnonzero(np.isfinite(shares).any(0))
    spread = np.nan_to_num(shares).std(0)
    chosen = sorted(with_points.tolist(), key=lambda place: (-spread[place], place))[:count]
    if not chosen:
        return {}
    records = [
        read_records(path, descriptor=name, **labels).take(chosen).to_pylist() for name in names
    ]
    places: dict[str, int] = {}
    shown: list[dict[str, Any]] = []
    pairs = []
    for rows in zip(*records, strict=True):
        answers = [_answers(row) for row in rows]
        if not any(answers):
            continue
        for side, name in enumerate(("image_a", "image_b")):
            if rows[0][name] not in places:
                places[rows[0][name]] = len(shown)
                src, size = images.read(rows[0], side)
                shown.append({"src": src, "size": size or _extent(rows, side)})
        pairs.append(
            {
                "name": one_line(rows[0]["pair"]),
                "images": [places[rows[0][name]] for name in ("image_a", "image_b")],
                "answers": answers,
            }
        )
    if not pairs:
        return {}
    return {"names": [one_line(name) for name in names], "pairs": pairs, "images": shown}


def _shares(rows: Sequence[Mapping[str, Any]]) -> Any:
    return np.array([np.mean(row["hits"][0]) if any(row["hits"]) else np.nan for row in rows])


def _answers(row: Mapping[str, Any]) -> list[list[float]]:
    """Return a pair's points, spread over them where there are too many."""
    # A matcher without matches finds a point nowhere, and a homography may take one to infinity.
    known = [place for place in range(len(row["distances"])) if _is_found(row, place)]
    spread = np.linspace(0, len(known) - 1, min(len(known), _POINTS))
    kept = [known[place] for place in sorted({round(each) for each in spread})]
    return [
        [
            *(round(v, 1) for key in ("points_a", "found_b", "true_b") for v in row[key][place]),
            int(row["hits"][0][place]),
        ]
        for place in kept
    ]


def _is_found(row: Mapping[str, Any], place: int) -> bool:
    return all(map(math.isfinite, (*row["found_b"][place], *row["true_b"][place])))


def _extent(rows: Sequence[Mapping[str, Any]], side: int) -> tuple[int, int]:
    """Return the least size, (width, height), that holds the points of an image."""
    keys = ("points_a",) if side == 0 else ("found_b", "true_b")
    points = [p for row in rows for key in keys for p in row[key] if all(map(math.isfinite, p))]
    found = [math.ceil(max((p[axis] for p in points), default=0)) + 1 for axis in (0, 1)]
    return found[0], found[1]


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
