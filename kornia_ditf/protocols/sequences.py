"""Scoring the masks that descriptors carry through a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kornia_ditf.datasets.sequences import FrameSequence
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.propagation import Propagation, propagate_masks
from kornia_ditf.metrics.masks import boundary_accuracy, region_similarity
from kornia_ditf.protocols.evaluate import check_size
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.types import DescriptorMap, Frame
from kornia_ditf.utils.files import atomic_write

_VOID = 255
_SHORT = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceResult:
    """Result of one sequence, per object and frame.

    Args:
        name: of the sequence.
        frames: which frames were scored: all but the first and the last.
        j: region similarity, shape (objects, frames).
        f: boundary accuracy, shape (objects, frames).
    """

    name: str
    frames: tuple[int, ...]
    j: npt.NDArray[np.float64]
    f: npt.NDArray[np.float64]


def evaluate_sequence(
    describe: Callable[[Path], DescriptorMap],
    sequence: FrameSequence,
    protocol: Protocol,
    *,
    save_to: Path | None = None,
) -> SequenceResult:
    """Propagate the first frame's masks through a sequence and score them as in DAVIS 2017.

    Void pixels (255) are no object, as in the semi-supervised task of davis2017-evaluation. Frames
    are described one by one, and at most `last_frames` and 2 are held.

    Args:
        describe: gives the descriptors of a frame, fitted by `prepare_image` with this protocol.
        sequence: the frames, all with masks.
        protocol: one of the task `masks`.
        save_to: a folder to write the masks that were found to, as indexed PNG.

    Raises:
        InvalidArgumentError: another task, or a sequence of fewer than three frames or without
            objects.
        DatasetError: a mask is missing or malformed, or a frame has another size.
        OutputError: a mask cannot be written.
    """
    if protocol.task != "masks":
        raise InvalidArgumentError(f"{protocol.name} scores {protocol.task}: use evaluate_pair")
    first = _known(sequence, 0)
    objects = int(first.max())
    if len(sequence) < 3 or not objects:
        raise InvalidArgumentError(
            f"{sequence.name} has {len(sequence)} frames and {objects} objects in its first mask; "
            "at least three and one are needed"
        )

    def described() -> Iterator[DescriptorMap]:
        for path in sequence.frames if save_to else sequence.frames[:-1]:
            check_size(path, sequence.size, protocol)
            yield _framed(describe(path), sequence.size)

    j, f = (np.empty((objects, len(sequence) - 2)) for _ in "jf")
    numbers = _numbers(sequence, protocol)
    for index, found in enumerate(propagate_masks(described(), first, numbers)):
        if save_to is not None:
            _save(found, save_to / sequence.name / f"{sequence.frames[index].stem}.png")
        if 0 < index < len(sequence) - 1:
            masks, true = found.cpu().numpy(), _known(sequence, index).numpy()
            for number in range(1, objects + 1):
                pair = (true == number, masks == number)
                j[number - 1, index - 1] = region_similarity(*pair)
                f[number - 1, index - 1] = boundary_accuracy(*pair)
    scored = tuple(range(1, len(sequence) - 1))
    return SequenceResult(name=sequence.name, frames=scored, j=j, f=f)


def _numbers(sequence: FrameSequence, protocol: Protocol) -> Propagation:
    numbers = protocol.propagation or Propagation()
    if "short-shooting" in protocol.compat and sequence.name == "shooting":
        return replace(numbers, last_frames=min(numbers.last_frames, _SHORT))
    return numbers


def _known(sequence: FrameSequence, index: int) -> Tensor:
    mask = sequence.read_mask(index).long()
    return torch.where(mask == _VOID, 0, mask)


def _framed(described: DescriptorMap, size: tuple[int, int]) -> DescriptorMap:
    if described.frame.image_size == size:
        return described
    # What the protocol fitted is, for reading masks, the picture that the model saw.
    return DescriptorMap(described.data, Frame(size, described.frame.image_size))


def _save(mask: Tensor, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask.cpu().numpy().astype(np.uint8)).convert("P")
    image.putpalette(_palette())
    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG")


def _palette() -> list[int]:
    """Make the colours of PASCAL VOC and DAVIS, by dealing out a number's bits."""
    number, channel, place = np.ogrid[:256, :3, :3]
    bits = number >> (3 * place + channel) & 1
    colours: list[int] = (bits << (7 - place)).sum(2).flatten().tolist()
    return colours
