"""Images that were read and fitted."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from kornia_ditf.types.frame import Frame
from kornia_ditf.utils.values import Check


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """Images as `DenseDescriptor.prepare` reads them, ready to be described.

    Args:
        pixels: RGB in [0, 1], shape (B, 3, h, w), of the model's size if the descriptor fits them.
        frame: how the images' pixels map onto these.
        exact: the same in float32 on the CPU, as noise is drawn by it.
        checks: conditions on an accelerator's values that were not read yet.
    """

    pixels: Tensor
    frame: Frame
    exact: Tensor | None = None
    checks: list[Check] = field(default_factory=list)
