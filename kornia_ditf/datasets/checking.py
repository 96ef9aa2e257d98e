"""Recognising a copy of a data set, counting what it holds, and listing its defects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kornia_ditf.datasets.files import annotated_image, as_pixels
from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.datasets.sequences import FrameSequence
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError, ImageError
from kornia_ditf.utils.images import read_image

_NEEDED_POINTS = 3  # prepare_ap10k.ipynb keeps no pair of fewer


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect of a file: what is wrong, what was expected, and how to get it."""

    file: str
    reason: str


@dataclass(slots=True)
class SplitCount:
    """The counts of one split.

    Args:
        split: its name.
        pairs: how many pairs, or sequences of frames, can be read.
        points: how many points are annotated in both images, or objects in first frames.
        categories: how many pairs each category has.
    """

    split: str
    pairs: int = 0
    points: int = 0
    categories: dict[str, int] = field(default_factory=dict)

    def add(self, category: str, points: int) -> None:
        """Count a pair, or a sequence."""
        self.pairs, self.points = self.pairs + 1, self.points + points
        self.categories[category] = self.categories.get(category, 0) + 1


@dataclass(slots=True)
class CheckReport:
    """The counts and defects of a copy of a data set."""

    dataset: str
    root: str
    splits: list[SplitCount] = field(default_factory=list)
    images: int = 0
    defects: list[Defect] = field(default_factory=list)

    def add(self, error: DatasetError | ImageError, file: Path | None = None) -> None:
        """Note a defect, once."""
        if isinstance(error, DatasetError):
            defect = Defect(str(error.file), error.reason)
        else:
            defect = Defect(str(file), str(error))
        if defect not in self.defects:
            self.defects.append(defect)


def recognise(root: str | Path, specs: Iterable[DatasetSpec]) -> DatasetSpec | None:
    """Recognise which data set a folder holds, by the files and folders in it or by its name.

    Args:
        root: the folder, or the one that holds it.
        specs: the data sets that it may be.

    Returns:
        the most specific data set that fits; None if none does.
    """
    given, known = Path(root).expanduser(), [spec for spec in specs if spec.inside]
    fitting = [spec for spec in known if spec.recognise(given)]
    if fitting:
        return max(fitting, key=lambda spec: len(spec.inside))
    # A copy that lacks what it is known by still has its name.
    names = {spec.folder: spec for spec in known if spec.folder}
    near = [given.resolve().name, *(path.name for path in given.iterdir() if path.is_dir())]
    return next((names[name] for name in near if name in names), None)


def check_dataset(
    spec: DatasetSpec,
    root: str | Path,
    *,
    images: bool = True,
    track: Callable[[str, int], Callable[[], None]] = lambda what, count: lambda: None,
) -> CheckReport:
    """Read everything in a copy of a data set and list every defect.

    Args:
        spec: which data set it is.
        root: the folder that holds it.
        images: decode every image too, and compare its size with what is annotated.
        track: called with what comes next and how many; returns a callback for each one done.

    Returns:
        the counts of the splits that are there, and the defects.
    """
    report = CheckReport(spec.name, str(root))
    found: dict[Path, tuple[int, int]] = {}
    for split in _present(spec, Path(root).expanduser()):
        try:
            dataset = spec.load(root, split=split)
        except DatasetError as error:
            report.add(error)
            continue
        count = SplitCount(split)
        report.splits.append(count)
        done = track(split, len(dataset))
        for index in range(len(dataset)):
            try:
                item = dataset[index]
                check = _check_sequence if isinstance(item, FrameSequence) else _check_pair
                check(item, count, report, found)
            except DatasetError as error:
                report.add(error)
            done()
        count.categories = dict(sorted(count.categories.items()))
        for other in getattr(dataset, "defects", tuple)():
            report.add(other)
    report.images = len(found)
    if images:
        done = track("images", len(found))
        for path, size in found.items():
            try:
                read_image(path)
                annotated_image(path, size, "")
            except (ImageError, DatasetError) as error:
                report.add(error, path)
            done()
    return report


def _present(spec: DatasetSpec, root: Path) -> list[str]:
    places = (root, root / spec.folder)
    found = [
        split
        for split in spec.splits
        if spec.split_path
        and any((place / spec.split_path.format(split=split)).exists() for place in places)
    ]
    # Where none is there, the usual one says what is missing.
    return found or [spec.splits[0]]


def _check_pair(
    pair: Pair, count: SplitCount, report: CheckReport, found: dict[Path, tuple[int, int]]
) -> None:
    points = int(pair.visible.sum())
    count.add(pair.category, points)
    if report.dataset == "ap-10k" and points < _NEEDED_POINTS:
        report.defects.append(
            Defect(pair.name, f"{points} points are visible in both images, where pairs have 3")
        )
    for path, size in ((pair.image_a, pair.size_a), (pair.image_b, pair.size_b)):
        if found.setdefault(path, size) != size:
            report.add(
                DatasetError(
                    path, f"annotations say {as_pixels(size)} and {as_pixels(found[path])}"
                )
            )


def _check_sequence(
    sequence: FrameSequence,
    count: SplitCount,
    report: CheckReport,
    found: dict[Path, tuple[int, int]],
) -> None:
    objects = 0
    for index, frame in enumerate(sequence.frames):
        found[frame] = sequence.size
        try:
            mask = sequence.read_mask(index)
            if index == 0:
                objects = len(set(mask.flatten().tolist()) - {0, 255})
        except DatasetError as error:
            report.add(error)
    count.add("all", objects)
