"""What a data set of videos gives: frames in order, and masks of objects in them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from kornia_ditf.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSequence:
    """The frames of a video, and their masks.

    Args:
        name: unique in its data set.
        frames: paths of the images, in order.
        masks: the mask of each frame; None where there is none.
        size: height and width of all frames.
        label: what the video shows, in words, for prompts.
    """

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    size: tuple[int, int]
    label: str = ""

    def __len__(self) -> int:
        return len(self.frames)

    def read_mask(self, index: int) -> Tensor:
        """Read which object each pixel of a frame shows.

        Returns:
            numbers of objects, 0 is none and 255 is void; shape (H, W), uint8.

        Raises:
            DatasetError: the mask is missing, no indexed image, or of another size.
        """
        path = self.masks[index]
        if path is None:
            raise DatasetError(self.frames[index], "it has no mask")
        return read_indexed(path, self.size)


class SequenceDataset(Sequence[FrameSequence]):
    """A sequence of videos; taking one lists its files.

    Args:
        name: of the data set.
        root: the folder that holds it.
        split: which part of it this is.
    """

    def __init__(self, name: str, root: Path, split: str) -> None:
        self.name, self.root, self.split = name, root, split

    @property
    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """The names that videos count under, sorted."""

    @abstractmethod
    def read(self, index: int) -> FrameSequence:
        """Read one video's list of files, index in [0, len).

        Raises:
            DatasetError: a file of it is missing.
        """

    def defects(self) -> Iterator[DatasetError]:
        """Name what is wrong with files that reading sequences does not touch."""
        return iter(())

    @overload
    def __getitem__(self, index: int) -> FrameSequence: ...

    @overload
    def __getitem__(self, index: slice) -> list[FrameSequence]: ...

    def __getitem__(self, index: int | slice) -> FrameSequence | list[FrameSequence]:
        if isinstance(index, slice):
            return [self.read(each) for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        return self.read(index % len(self))

    def __iter__(self) -> Iterator[FrameSequence]:
        return (self.read(index) for index in range(len(self)))

    def images(self) -> dict[Path, str]:
        """List each frame once, in order, with its label for prompts."""
        return {frame: sequence.label for sequence in self for frame in sequence.frames}


def read_indexed(path: Path, size: tuple[int, int]) -> Tensor:
    """Read an image of numbers: a PNG with a palette, or a grey one.

    Raises:
        DatasetError: it is missing, damaged, has colours, or another size.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise DatasetError(
                    path, f"it holds colours ({image.mode}) where an index of objects is expected"
                )
            array = np.array(image).astype(np.uint8)
    except FileNotFoundError as error:
        raise DatasetError(path, "there is no such mask") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(path, f"it is no image, or damaged ({error})") from error
    if array.shape != size:
        raise DatasetError(path, f"it has {array.shape} pixels where the frame has {size}")
    return torch.from_numpy(array)
