"""Curves of a study over the levels of a corruption, such as blur or turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kornia_ditf.metrics.statistics import Interval
from kornia_ditf.study.define.listing import dataset_labels
from kornia_ditf.study.define.spec import DatasetChoice, Study
from kornia_ditf.study.report.analysis import Curve, Section

_UNCHANGED = {"blur": 0.0, "noise": 0.0, "light": 0.0, "rotation": 0.0, "scale": 1.0}
_UNITS = {
    "blur": "sigma of the blur, px",
    "noise": "standard deviation of the noise",
    "jpeg": "quality of the JPEG",
    "light": "strength of the relighting",
    "scale": "scale of image B",
    "rotation": "turn of image B, degrees",
}


@dataclass(frozen=True, slots=True)
class LevelCurves:
    """A data set by a protocol, at several levels of one corruption.

    Args:
        dataset: what it is called without the corruption.
        score: name of the first score of the tables.
        axis: what the levels are.
        levels: in ascending order.
        pairs: how many at each level.
        curves: one for each configuration; one that has no score at a level lacks that point.
    """

    dataset: str
    protocol: str
    score: str
    kind: str
    axis: str
    seed: int
    levels: tuple[float, ...]
    pairs: tuple[int, ...]
    curves: tuple[Curve, ...]

    def value(self, curve: Curve, level: float) -> Interval | None:
        """Return a configuration's score at a level; None where it has none."""
        return dict(curve.points).get(level)


def level_curves(study: Study, sections: Sequence[Section]) -> list[LevelCurves]:
    """Join the sections that differ in the level of a corruption alone.

    The data set without corruption is the level at which nothing changes, where the study has it.
    """
    labels = dict(zip(dataset_labels(study), study.datasets, strict=True))
    groups: dict[tuple[str, str, int, str], dict[float, Section]] = {}
    for section in sections:
        choice = labels.get(section.dataset)
        if choice is not None and choice.corrupt is not None:
            change = choice.corrupt
            name = (_plain(choice), change.kind, change.seed, section.protocol["name"])
            groups.setdefault(name, {})[change.level] = section
    for section in sections:
        choice = labels.get(section.dataset)
        for (plain, kind, _, protocol), found in groups.items():
            same = choice is not None and choice.corrupt is None and _plain(choice) == plain
            if same and kind in _UNCHANGED and section.protocol["name"] == protocol:
                found.setdefault(_UNCHANGED[kind], section)
    return [
        _curves(kind, seed, protocol, found)
        for (_, kind, seed, protocol), found in groups.items()
        if len(found) > 1
    ]


def _plain(choice: DatasetChoice) -> str:
    return str(choice.model_dump(exclude={"label", "corrupt", "protocols"}))


def _curves(kind: str, seed: int, protocol: str, found: dict[float, Section]) -> LevelCurves:
    levels = sorted(found)
    points: dict[str, list[tuple[float, Interval]]] = {}
    for level in levels:
        for row in found[level].rows:
            points.setdefault(row.descriptor, []).append((level, row.values[0]))
    first = found[levels[-1]]
    return LevelCurves(
        dataset=first.dataset.rpartition(f", {kind} ")[0] or first.dataset,
        protocol=protocol,
        score=first.scores[0].name,
        kind=kind,
        axis=_UNITS[kind],
        seed=seed,
        levels=tuple(levels),
        pairs=tuple(found[level].pairs for level in levels),
        curves=tuple(Curve(kind, label, tuple(line)) for label, line in points.items()),
    )
