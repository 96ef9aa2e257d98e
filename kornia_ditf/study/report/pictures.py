"""Records of one cell in; its best and worst pairs, drawn with right and wrong matches, out."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kornia_ditf.errors import ImageError, InvalidArgumentError
from kornia_ditf.preprocess import as_image
from kornia_ditf.types import Matches
from kornia_ditf.viz.matches import draw_matches

_WIDTH = 900
_QUALITY = 78
_MATCHES = 24


@dataclass(frozen=True, slots=True)
class PairPicture:
    """A pair with its matches.

    Args:
        pair: its name.
        kind: best or worst.
        right: how many matches are right at the first threshold.
        points: how many there are.
        image: a JPEG as a data URI; None where an image cannot be read any more.
    """

    pair: str
    kind: str
    right: int
    points: int
    image: str | None


def draw_pairs(
    path: Path, descriptor: str, dataset: str, protocol: str, count: int
) -> list[PairPicture]:
    """Draw a cell's best and worst pairs.

    Args:
        path: the file of records.
        descriptor: label of the configuration.
        dataset: label of the data set.
        protocol: name of the protocol.
        count: so many best and so many worst; a pair is shown once.
    """
    import pyarrow.parquet as pq

    chosen = [
        ("descriptor", "==", descriptor),
        ("dataset", "==", dataset),
        ("protocol", "==", protocol),
    ]
    columns = ["pair", "hits", "distances", "base"]
    short = pq.read_table(path, columns=columns, filters=chosen).to_pylist()
    ranked = sorted(
        (place for place, row in enumerate(short) if row["distances"]),
        key=lambda place: _quality(short[place]),
    )
    if not ranked:
        return []
    count = min(count, len(ranked) // 2 if len(ranked) > 1 else len(ranked))
    wanted = [(place, "best") for place in ranked[::-1][:count]]
    wanted += [(place, "worst") for place in ranked[:count] if len(ranked) > 1]
    rows = pq.read_table(path, filters=chosen).take([place for place, _ in wanted]).to_pylist()
    return [_picture(row, kind) for row, (_, kind) in zip(rows, wanted, strict=True)]


def _quality(row: Mapping[str, Any]) -> tuple[float, float]:
    hits = row["hits"][0]
    return sum(hits) / len(hits), -sum(row["distances"]) / len(hits) / row["base"]


def _picture(row: Mapping[str, Any], kind: str) -> PairPicture:
    hits: Sequence[bool] = row["hits"][0]
    try:
        image: str | None = _draw(row, hits)
    except (ImageError, InvalidArgumentError):
        image = None
    return PairPicture(row["pair"], kind, sum(hits), len(hits), image)


def _draw(row: Mapping[str, Any], hits: Sequence[bool]) -> str:
    import cv2

    matches = Matches(
        torch.tensor(row["points_a"]), torch.tensor(row["found_b"]), torch.ones(len(hits))
    )
    images = [as_image(row[name]) for name in ("image_a", "image_b")]
    right = torch.tensor(hits)
    drawn = draw_matches(
        images[0], images[1], matches, limit=_MATCHES, inliers=right, caption=False
    )
    scale = min(1.0, _WIDTH / drawn.shape[1])
    size = (round(drawn.shape[1] * scale), round(drawn.shape[0] * scale))
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
