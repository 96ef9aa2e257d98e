"""DAVIS 2017: videos with masks of objects (Pont-Tuset et al., arXiv 1704.00675)."""

from __future__ import annotations

from pathlib import Path

from kornia_ditf.datasets.files import image_size, path_inside, read_text
from kornia_ditf.datasets.sequences import FrameSequence, SequenceDataset
from kornia_ditf.datasets.spec import DatasetSpec
from kornia_ditf.errors import DatasetError

_HOW = "Get DAVIS-2017-trainval-480p.zip from https://davischallenge.org/davis2017/code.html"


class Davis(SequenceDataset):
    """One split, in the order of its list.

    Args:
        root: DAVIS, or the folder that holds it.
        split: val or train.
        resolution: 480p or Full-Resolution.

    Raises:
        DatasetError: a folder or the list is missing.
    """

    def __init__(self, root: str | Path, *, split: str = "val", resolution: str = "480p") -> None:
        inside = (f"JPEGImages/{resolution}", f"Annotations/{resolution}", "ImageSets/2017")
        place = SPEC.find(root, split, inside)
        file = place / "ImageSets" / "2017" / f"{split}.txt"
        names = read_text(file, _HOW).split()
        if not names:
            raise DatasetError(file, f"it names no sequence. {_HOW}")
        super().__init__(SPEC.name, place, split, names)
        self._file, self._resolution = file, resolution

    def read(self, index: int) -> FrameSequence:
        name = self.entries[index]
        folder = path_inside(self.root / "JPEGImages" / self._resolution, name, self._file)
        frames = sorted(folder.glob("*.jpg"))
        if not frames:
            raise DatasetError(folder, f"it holds no frame *.jpg. {_HOW}")
        numbers = [int(path.stem) if path.stem.isdigit() else -1 for path in frames]
        missing = set(range(len(frames))) - set(numbers)
        if missing:
            raise DatasetError(folder / f"{min(missing):05d}.jpg", f"this frame is missing. {_HOW}")
        masks = self.root / "Annotations" / self._resolution / name
        paths = tuple((masks / path.name).with_suffix(".png") for path in frames)
        beyond = sorted(set(masks.glob("*.png")) - set(paths))
        if beyond:
            frame = folder / f"{beyond[0].stem}.jpg"
            raise DatasetError(frame, f"this frame is missing, and its mask is there. {_HOW}")
        if not paths[0].is_file():
            raise DatasetError(paths[0], f"the mask of the first frame is missing. {_HOW}")
        return FrameSequence(
            name=name,
            frames=tuple(frames),
            masks=tuple(path if path.is_file() else None for path in paths),
            # As OpenCV reads them in the published scripts.
            size=image_size(frames[0], _HOW, upright=True),
            label=name.replace("-", " "),
        )


SPEC = DatasetSpec(
    name="davis-2017",
    load=Davis,
    layout="{JPEGImages,Annotations}/480p/<sequence>/00000.{jpg,png} ..., "
    "ImageSets/2017/{train,val}.txt",
    source=_HOW,
    license="CC BY-NC 4.0",
    folder="DAVIS",
    inside=("JPEGImages/480p", "Annotations/480p", "ImageSets/2017"),
    splits=("val", "train"),
    split_path="ImageSets/2017/{split}.txt",
)
