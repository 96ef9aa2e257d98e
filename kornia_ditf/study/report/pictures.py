"""Pictures of pairs: their images, and their right and wrong matches."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
_SIDE = 520  # of images in the viewer, at most


@dataclass(frozen=True, slots=True)
class PairPicture:
    """A pair with its matches.

    Args:
        kind: best or worst.
        right: how many of its points are right at the first threshold.
        image: a JPEG as a data URI; None where an image cannot be read any more.
    """

    pair: str
    kind: str
    right: int
    points: int
    image: str | None


class PairImages:
    """The images of a data set's pairs, as small JPEGs, as long as they are where they were.

    Args:
        choice: the data set, which knows where its images are.
        upright: whether the protocol applies EXIF orientations.
        limit_bytes: what `read` gives in all.
    """

    def __init__(self, choice: DatasetChoice, *, upright: bool, limit_bytes: int = 0) -> None:
        self.upright, self.left = upright, limit_bytes
        self._dataset: Any = None
        with suppress(DiTFError):
            self._dataset = open_dataset(choice)

    def paths(self, row: Mapping[str, Any]) -> list[Path]:
        """Return a record's two images; none where they were moved or changed since."""
        with suppress(DiTFError, LookupError):
            pair = None if self._dataset is None else self._dataset[row["index"]]
            paths = [] if pair is None else [pair.image_a, pair.image_b]
            names = [image_name(each, self._dataset.root) for each in paths]
            return paths if names == [row["image_a"], row["image_b"]] else []
        return []

    def draw(self, row: Mapping[str, Any]) -> str | None:
        """Draw a record's matches as a data URI."""
        try:
            images = [as_image(path, upright=self.upright) for path in self.paths(row)]
        except DiTFError:
            return None
        if not images:
            return None
        places, found = (torch.tensor(row[key]).reshape(-1, 2) for key in ("points_a", "found_b"))
        answered = found.isfinite().all(1)  # a matcher may have no match near a point
        right = torch.tensor(row["hits"][0], dtype=torch.bool)[answered]
        matches = Matches(places[answered], found[answered], torch.ones(len(right)))
        drawn = draw_matches(
            images[0], images[1], matches, limit=_MATCHES, inliers=right, caption=False
        )
        return _jpeg(drawn, _WIDTH)

    def read(self, row: Mapping[str, Any], side: int) -> tuple[str | None, tuple[int, int] | None]:
        """Return one image of a record as a data URI, and its (width, height)."""
        try:
            (image,) = as_image(self.paths(row)[side], upright=self.upright)
        except (DiTFError, IndexError):
            return None, None
        pixels = (255 * image.permute(1, 2, 0)).round().byte().numpy()
        size = pixels.shape[1], pixels.shape[0]
        src = _jpeg(pixels, round(_SIDE * min(1.0, size[0] / size[1])))
        if len(src) > self.left:
            return None, size
        self.left -= len(src)
        return src, size


def draw_pairs(
    path: Path, experiment: Mapping[str, Any], images: PairImages, count: int
) -> list[PairPicture]:
    """Draw the best and the worst pairs of an experiment, each pair once."""
    columns = ("pair", "hits", "distances", "base")
    short = read_records(path, experiment, columns).to_pylist()
    ranked = sorted(
        (place for place, row in enumerate(short) if row["distances"]),
        key=lambda place: _quality(short[place]),
    )
    if not ranked or not count:
        return []
    count = min(count, len(ranked) // 2 if len(ranked) > 1 else len(ranked))
    wanted = [(place, "best") for place in ranked[::-1][:count]]
    wanted += [(place, "worst") for place in ranked[:count] if len(ranked) > 1]
    rows = read_records(path, experiment).take([place for place, _ in wanted]).to_pylist()
    return [
        PairPicture(row["pair"], kind, sum(row["hits"][0]), len(row["hits"][0]), images.draw(row))
        for row, (_, kind) in zip(rows, wanted, strict=True)
    ]


def _quality(row: Mapping[str, Any]) -> tuple[float, float]:
    hits = row["hits"][0]
    return sum(hits) / len(hits), -sum(row["distances"]) / len(hits) / row["base"]


def _jpeg(pixels: Any, width: int) -> str:
    """Return RGB pixels, no wider than `width`, as a data URI."""
    import cv2

    scale = min(1.0, width / pixels.shape[1])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
