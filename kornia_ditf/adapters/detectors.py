"""A detector of Kornia or OpenCV and a batch of images in, padded local affine frames out.

Kornia's detectors take one channel, some of them one image only, and OpenCV's take 8 bits; here
each image is given to a detector as that detector wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kornia.feature as KF
import torch
import torch.nn.functional as F
from kornia.color import rgb_to_grayscale
from torch import Tensor, nn

from kornia_ditf.adapters.keypoints import NamedDetector, allowed_at, grid_centres, is_filled
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.types import DescriptorMap


class OpenCVDetector(nn.Module):
    """An OpenCV detector as a Kornia one; a keypoint's diameter becomes its frame's.

    Args:
        detector: anything with OpenCV's `detect(image, mask)`.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Detect in one grey image (1, 1, H, W) in [0, 1]; mask (1, 1, H, W), 0 where not.

        Returns:
            frames (1, N, 2, 3) and responses (1, N), float32; N may be 0.
        """
        grey = (img[0, 0].detach().float() * 255).round().clamp(0, 255).byte().cpu().numpy()
        allowed = None if mask is None else (mask[0, 0] > 0).byte().cpu().numpy()
        found = self.detector.detect(grey, allowed)
        rows = [(*k.pt, max(k.size, 1.0) / 2, -max(k.angle, 0.0), k.response) for k in found]
        x, y, scale, angle, response = torch.tensor(rows, device=img.device).view(-1, 5).unbind(1)
        lafs = KF.laf_from_center_scale_ori(
            torch.stack([x, y], -1)[None], scale.view(1, -1, 1, 1), angle.view(1, -1, 1)
        )
        return lafs, response[None]


def as_detector(detector: Any, max_keypoints: int | None = None) -> nn.Module | None:
    """Read what a user or a host's configuration names as a detector.

    Args:
        detector: a Kornia detector, an OpenCV detector, the name of one of OpenCV's (`sift`, `orb`,
            `gftt` ...), or None or `grid` for the centres of the tokens.
        max_keypoints: how many a named detector that can be told finds at most.

    Returns:
        a module from a grey image and a mask to frames and responses; None for the grid.

    Raises:
        InvalidArgumentError: it is none of these, or this OpenCV has none of that name.
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
    """Run a detector on each image of a batch, in grey and float32.

    Args:
        detector: from a grey image (1, 1, H, W) and a mask to frames and responses.
        img: images (B, 1, H, W) or (B, 3, H, W) in [0, 1].
        mask: shape (B, 1, H, W); nothing is kept where it is 0.
        scaling_coef: what the frames' shapes are multiplied by.
        max_keypoints: how many are kept in an image, those of highest response.

    Returns:
        frames (B, N, 2, 3) and responses (B, N), float32; images in which less was found than in
        others end with frames that are all zero, as Kornia's do.
    """
    grey = (rgb_to_grayscale(img) if img.shape[1] == 3 else img).float()
    lafs, responses = [], []
    for index in range(len(img)):
        allowed = None if mask is None else mask[index : index + 1].to(grey)
        frames, strengths = detector(grey[index : index + 1], allowed)[:2]
        frames = KF.scale_laf(frames.float(), scaling_coef)
        strengths = strengths.float().reshape(1, -1)
        keep = is_filled(frames)[0]
        if allowed is not None:
            keep = keep & allowed_at(KF.get_laf_center(frames)[0], allowed[0, 0])
        kept = keep.nonzero().flatten()
        if max_keypoints is not None and len(kept) > max_keypoints:
            kept = kept[strengths[0, kept].topk(max_keypoints).indices.sort().values]
        lafs.append(frames[0, kept])
        responses.append(strengths[0, kept])
    return _stack(lafs), _stack(responses)


def grid(
    maps: DescriptorMap, mask: Tensor | None, max_keypoints: int | None = None
) -> tuple[Tensor, Tensor]:
    """Make a frame of every token: its centre, and its half sides as axes; every response is 1.

    Args:
        maps: descriptors of B images.
        mask: shape (B, 1, H, W); tokens whose centre lies where it is 0 are left out.
        max_keypoints: above this, take every second token of a row and column, or third ...

    Returns:
        frames and responses as `detect` gives them.
    """
    centres = grid_centres(maps, max_keypoints)
    (rows, columns), (height, width) = maps.grid, maps.frame.image_size
    shape = torch.diag(centres.new_tensor([width / columns / 2, height / rows / 2]))
    lafs = torch.cat([shape.expand(len(centres), 2, 2), centres[..., None]], -1)
    keeps = [
        torch.ones(len(lafs), dtype=torch.bool, device=lafs.device)
        if mask is None
        else allowed_at(centres, mask[index, 0])
        for index in range(len(maps))
    ]
    frames = _stack([lafs[keep] for keep in keeps])
    return frames, is_filled(frames).float()


def _stack(rows: Sequence[Tensor]) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.stack(
        [F.pad(row, (0, 0) * (row.ndim - 1) + (0, longest - len(row))) for row in rows]
    )
