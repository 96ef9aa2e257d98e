"""The best and worst pairs of an experiment, drawn with their right and wrong matches."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.errors import DiTFError
from kornia_ditf.preprocess import as_image
from kornia_ditf.study.define.listing import open_dataset
from kornia_ditf.study.define.spec import DatasetChoice
from kornia_ditf.study.store.records import image_name, read_records
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
    path: Path,
    experiment: Mapping[str, str],
    choice: DatasetChoice,
    count: int,
    *,
    upright: bool,
) -> list[PairPicture]:
    """Draw the best and the worst pairs of an experiment.

    Args:
        path: the file of records.
        experiment: labels of the descriptor and of the data set, and the protocol's name.
        choice: the data set, which knows where its images are.
        count: number of best pairs, and of worst; a pair is shown once.
        upright: whether the protocol applies EXIF orientations.
    """
    columns = ("pair", "hits", "distances", "base")
    short = read_records(path, columns=columns, **experiment).to_pylist()
    ranked = sorted(
        (place for place, row in enumerate(short) if row["distances"]),
        key=lambda place: _quality(short[place]),
    )
    if not ranked or not count:
        return []
    count = min(count, len(ranked) // 2 if len(ranked) > 1 else len(ranked))
    wanted = [(place, "best") for place in ranked[::-1][:count]]
    wanted += [(place, "worst") for place in ranked[:count] if len(ranked) > 1]
    rows = read_records(path, **experiment).take([place for place, _ in wanted]).to_pylist()
    try:
        dataset: Any = open_dataset(choice)
    except DiTFError:
        dataset = None
    return [
        _picture(row, kind, dataset, upright) for row, (_, kind) in zip(rows, wanted, strict=True)
    ]


def _quality(row: Mapping[str, Any]) -> tuple[float, float]:
    hits = row["hits"][0]
    return sum(hits) / len(hits), -sum(row["distances"]) / len(hits) / row["base"]


def _picture(row: Mapping[str, Any], kind: str, dataset: Any, upright: bool) -> PairPicture:
    hits: Sequence[bool] = row["hits"][0]
    image = None
    if dataset is not None:
        with suppress(DiTFError, IndexError):  # they were moved or changed since
            pair = dataset[row["index"]]
            names = [image_name(each, dataset.root) for each in (pair.image_a, pair.image_b)]
            if names == [row["image_a"], row["image_b"]]:
                image = _draw(row, hits, pair, upright)
    return PairPicture(row["pair"], kind, sum(hits), len(hits), image)


def _draw(row: Mapping[str, Any], hits: Sequence[bool], pair: Pair, upright: bool) -> str:
    import cv2

    matches = Matches(
        torch.tensor(row["points_a"]), torch.tensor(row["found_b"]), torch.ones(len(hits))
    )
    images = [as_image(path, upright=upright) for path in (pair.image_a, pair.image_b)]
    right = torch.tensor(hits)
    drawn = draw_matches(
        images[0], images[1], matches, limit=_MATCHES, inliers=right, caption=False
    )
    scale = min(1.0, _WIDTH / drawn.shape[1])
    size = (round(drawn.shape[1] * scale), round(drawn.shape[0] * scale))
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
