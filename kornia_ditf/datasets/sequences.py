"""Videos as frames in order, with masks of the objects in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kornia_ditf.datasets.base import Dataset
from kornia_ditf.datasets.files import as_pixels, reading
from kornia_ditf.errors import DatasetError
from kornia_ditf.utils.isolation import quiet


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


class SequenceDataset(Dataset[FrameSequence]):
    """A sequence of videos; accessing one lists its files.

    Args:
        name: of the data set.
        root: the folder that holds it.
        split: which part of it this is.
        entries: what is known of each video before its files are read.
    """

    def images(self) -> dict[Path, str]:
        return {frame: sequence.label for sequence in self for frame in sequence.frames}


def read_indexed(path: Path, size: tuple[int, int]) -> Tensor:
    """Read an image of object numbers: a PNG with a palette, or a grey one.

    Returns:
        shape (H, W), uint8.

    Raises:
        DatasetError: it is missing, damaged, has colours, or another size.
    """
    from PIL import Image

    with (
        reading(path, "it is not an image, or damaged", ""),
        quiet(Warning),
        Image.open(path) as image,
    ):
        if image.mode not in ("P", "L", "1"):
            raise DatasetError(
                path, f"it holds colours ({image.mode}) where an index of objects is expected"
            )
        found = image.size[::-1]
        if found == size:
            return torch.from_numpy(np.array(image).astype(np.uint8))
    raise DatasetError(path, f"it has {as_pixels(found)}, and its frame has {as_pixels(size)}")
