"""Run Kornia's and OpenCV's detectors on batches of images.

Kornia's detectors take one channel, some of them one image only, and OpenCV's take 8 bits. Each
image is passed to a detector in the form that it accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kornia.feature as KF
import torch
import torch.nn.functional as F
from kornia.color import rgb_to_grayscale
from torch import Tensor, nn

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.detection import (
    NamedDetector,
    allowed_at,
    first_at_position,
    grey_pixels,
    grid_centres,
    is_filled,
)
from kornia_ditf.types import DescriptorMap


class OpenCVDetector(nn.Module):
    """Wrap an OpenCV detector as a Kornia detector; keypoint diameters become frame diameters."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def extra_repr(self) -> str:
        return repr(self.detector)

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return frames (1, N, 2, 3) and responses (1, N) of an image (1, 1, H, W) in a mask."""
        allowed = None if mask is None else (mask[0, 0] > 0).byte().cpu().numpy()
        found = self.detector.detect(grey_pixels(img), allowed)
        rows = [(*k.pt, max(k.size, 1.0) / 2, -max(k.angle, 0.0), k.response) for k in found]
        x, y, scale, angle, response = torch.tensor(rows, device=img.device).view(-1, 5).unbind(1)
        lafs = KF.laf_from_center_scale_ori(
            torch.stack([x, y], -1)[None], scale.view(1, -1, 1, 1), angle.view(1, -1, 1)
        )
        return lafs, response[None]


def as_detector(detector: Any, max_keypoints: int | None = None) -> nn.Module | None:
    """Convert a detector of Kornia or OpenCV, or the name of one, to a Kornia detector module.

    None or `grid`, the token centres, give None.
    """
    if detector is None or detector == "grid":
        return None
    if isinstance(detector, nn.Module):
        return detector
    if isinstance(detector, str):
        return OpenCVDetector(NamedDetector(detector, max_keypoints))
    if callable(getattr(detector, "detect", None)):
        return OpenCVDetector(detector)
    raise InvalidArgumentError(
        "detector must be a Kornia or OpenCV detector or the name of an OpenCV one, "
        f"got {type(detector).__name__}"
    )


def detect(
    detector: nn.Module,
    img: Tensor,
    mask: Tensor | None,
    *,
    scaling_coef: float = 1.0,
    max_keypoints: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a detector on each image of a batch (B, 1 or 3, H, W), in grey and float32.

    Returns frames (B, N, 2, 3) and responses (B, N), each position once, none where the mask
    (B, 1, H, W) is 0, and the strongest if there are more than `max_keypoints`. Images with fewer
    frames than others are padded with zeros, as Kornia's detectors do.
    """
    grey = (rgb_to_grayscale(img) if img.shape[1] == 3 else img).float()
    lafs, responses = [], []
    for index in range(len(img)):
        allowed = None if mask is None else mask[index : index + 1].to(grey)
        frames, strengths = detector(grey[index : index + 1], allowed)[:2]
        frames = KF.scale_laf(frames.float(), scaling_coef)
        strengths = strengths.float().reshape(1, -1)
        centres = frames[0, :, :, 2]
        keep = is_filled(frames)[0]
        if allowed is not None:
            keep = keep & allowed_at(centres, allowed[0, 0])
        kept = keep.nonzero().flatten()
        kept = kept[first_at_position(centres[kept])]
        if max_keypoints is not None and len(kept) > max_keypoints:
            kept = kept[strengths[0, kept].topk(max_keypoints).indices.sort().values]
        lafs.append(frames[0, kept])
        responses.append(strengths[0, kept])
    return _stack(lafs), _stack(responses)


def grid(
    maps: DescriptorMap, mask: Tensor | None, max_keypoints: int | None = None
) -> tuple[Tensor, Tensor]:
    """Make one frame per token, with its centre and half sides; every response is 1.

    Tokens whose centres lie where the mask is 0 are dropped, and others thinned evenly to at most
    `max_keypoints`; frames and responses are as `detect` gives them.
    """
    centres = grid_centres(maps, max_keypoints)
    (rows, columns), (height, width) = maps.grid, maps.frame.image_size
    shape = torch.diag(centres.new_tensor([width / columns / 2, height / rows / 2]))
    lafs = torch.cat([shape.expand(len(centres), 2, 2), centres[..., None]], -1)
    if mask is None:
        frames = lafs.expand(len(maps), *lafs.shape)
    else:
        frames = _stack([lafs[allowed_at(centres, each[0])] for each in mask])
    return frames, is_filled(frames).float()


def _stack(rows: Sequence[Tensor]) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.stack(
        [F.pad(row, (0, 0) * (row.ndim - 1) + (0, longest - len(row))) for row in rows]
    )
