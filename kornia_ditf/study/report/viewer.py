"""What the viewer of a report shows: pairs, and each configuration's answer to every point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kornia_ditf.study.report.analysis import Section
from kornia_ditf.study.report.pictures import PairImages
from kornia_ditf.study.store.records import read_records
from kornia_ditf.utils.text import one_line

_CONTESTANTS = 12
_POINTS = ("points_a", "found_b", "true_b")
_MOST_POINTS = 100


def view_pairs(path: Path, section: Section, images: PairImages, count: int) -> dict[str, Any]:
    """Collect the pairs on which the configurations of a section differ most.

    Returns:
        for JSON: `names` of at most 12 configurations, the best ones; `pairs`, each with `name`,
        places of its `images`, and for each configuration `answers`: rows of x and y in A, found
        in B, true in B, and whether it is right at the first threshold; `images` with `size`
        (width, height) in their own pixels and `src`, null where one cannot be read or the page
        would grow too large. Empty where the protocol has no points.
    """
    best = sorted(section.rows, key=lambda row: -np.nan_to_num(row.values[0].value))[:_CONTESTANTS]
    shown_rows = [row.experiment for row in section.rows if row in best]
    shares = np.stack(
        [_shares(read_records(path, each, ["hits"]).to_pylist()) for each in shown_rows]
    )
    with_points = np.flatnonzero(np.isfinite(shares).any(0))
    spread = np.nan_to_num(shares).std(0)
    chosen = sorted(with_points.tolist(), key=lambda place: (-spread[place], place))[:count]
    if not chosen:
        return {}
    records = [read_records(path, each).take(chosen).to_pylist() for each in shown_rows]
    places: dict[str, int] = {}
    shown: list[dict[str, Any]] = []
    pairs = []
    for rows in zip(*records, strict=True):
        for side, name in enumerate(("image_a", "image_b")):
            if rows[0][name] not in places:
                places[rows[0][name]] = len(shown)
                src, size = images.read(rows[0], side)
                shown.append({"src": src, "size": size or _extent(rows, side)})
        pairs.append(
            {
                "name": one_line(rows[0]["pair"]),
                "images": [places[rows[0][name]] for name in ("image_a", "image_b")],
                "answers": [_answers(row) for row in rows],
            }
        )
    names = [one_line(each["descriptor"]) for each in shown_rows]
    return {"names": names, "pairs": pairs, "images": shown}


def _shares(rows: Sequence[Mapping[str, Any]]) -> Any:
    return np.array([np.mean(row["hits"][0]) if any(row["hits"]) else np.nan for row in rows])


def _answers(row: Mapping[str, Any]) -> list[list[float]]:
    """Return a pair's points, spread over them where there are too many."""
    points = np.concatenate([np.reshape(row[key], (-1, 2)) for key in _POINTS], 1)
    usable = np.flatnonzero(np.isfinite(points).all(1))
    few = np.linspace(0, len(usable) - 1, min(len(usable), _MOST_POINTS)).round().astype(int)
    return [[*points[at].round(1).tolist(), int(row["hits"][0][at])] for at in usable[few]]


def _extent(rows: Sequence[Mapping[str, Any]], side: int) -> tuple[int, int]:
    """Return the least size, (width, height), that holds the points of an image."""
    keys = _POINTS[:1] if side == 0 else _POINTS[1:]
    points = np.concatenate([np.reshape(row[key], (-1, 2)) for row in rows for key in keys])
    width, height = np.ceil(np.nan_to_num(points, posinf=0, neginf=0).max(0)) + 1
    return max(1, int(width)), max(1, int(height))
