"""Dense descriptors as drop-in replacements for Kornia's descriptor and feature modules.

Images are (B, C, H, W) in [0, 1]: RGB or grey, with or without an alpha channel, which is ignored.
Points and frames are in image pixels, float32, with (0, 0) at the centre of the first pixel.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import kornia.feature as KF
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.adapters.detectors import as_detector, detect, grid
from kornia_ditf.adapters.wrapped import Pretrained, as_descriptor
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.detection import is_filled, measures_scale, read_at_scales
from kornia_ditf.registry.lookup import DEFAULT_BACKBONE
from kornia_ditf.types import DescriptorMap
from kornia_ditf.utils.checks import check_integer, check_tensor
from kornia_ditf.utils.precision import widen


class DiTFDescriptor(Pretrained, nn.Module):
    """Describe local affine frames with a dense descriptor, for `kornia.feature.LocalFeature`.

    Args:
        descriptor: a dense descriptor, or a name or folder for `create_descriptor`.
        gradients: propagate gradients to the image and the frames; None takes the setting of the
            descriptor's configuration, or False where it has none.
        options: of `create_descriptor`, with a name.

    Raises:
        InvalidArgumentError: `descriptor` is another module, or options were passed with an
            existing descriptor; or as `create_descriptor`.

    Example:
        >>> import kornia.feature as KF
        >>> descriptor = DiTFDescriptor.from_pretrained("nano", long_side=96)
        >>> local = KF.LocalFeature(KF.ScaleSpaceDetector(50), descriptor)
        >>> lafs, responses, descriptors = local(torch.rand(1, 1, 64, 96))
        >>> descriptors.shape == (1, 50, descriptor.width)
        True
    """

    def __init__(
        self,
        descriptor: DenseDescriptor | str | Path = DEFAULT_BACKBONE,
        *,
        gradients: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if gradients and not isinstance(descriptor, nn.Module):
            options["gradients"] = True
        descriptor = as_descriptor(descriptor, options)
        configured = getattr(getattr(descriptor, "config", None), "gradients", None)
        if gradients and configured is False:
            raise InvalidArgumentError(
                "this descriptor does not propagate gradients: create it with "
                "create_descriptor(..., gradients=True)"
            )
        self.descriptor = descriptor
        self.gradients = bool(configured if gradients is None else gradients)

    def extra_repr(self) -> str:
        return f"gradients={self.gradients}"

    @property
    def width(self) -> int:
        """Channels D of the descriptors."""
        return self.descriptor.width

    def forward(self, img: Tensor, lafs: Tensor | None = None) -> Tensor:
        """Describe local affine frames by the descriptors at their centres.

        Args:
            img: images (B, C, H, W) in [0, 1] of 1 to 4 channels.
            lafs: frames (B, N, 2, 3), or (1, N, 2, 3) for all images; N may be 0. None returns
                `dense(img)`, as Kornia's dense descriptors do.

        Returns:
            descriptors of unit length, shape (B, N, D), float32; zero for frames that are all
            zero (the unused slots of Kornia's detectors) or not finite.

        Raises:
            InvalidArgumentError: a wrong shape or range, or a call by Kornia's
                `get_laf_descriptors`, which passes patches instead of the image.
            ImageError: the image is too small or too thin.
        """
        if lafs is None:
            _refuse_patches()
            return self.dense(img)
        return self.read(self.maps(img), lafs).to(img.device)

    def dense(self, img: Tensor) -> Tensor:
        """Describe every token, shape (B, D, rows, columns), not normalised."""
        return self.maps(img).data

    def describe(self, images: Tensor, keypoints: Tensor | None = None) -> Tensor:
        """Describe keypoints, or every pixel, as `kornia.feature.DeDoDe.describe` does.

        Args:
            images: as in `forward`.
            keypoints: (x, y) in [-1, 1], shape (B, N, 2), where -1 and 1 are the outer edges of the
                first and last pixels (Kornia's `align_corners=False`).

        Returns:
            descriptors of unit length: of the keypoints, shape (B, N, D), or of all pixels, shape
            (B, D, H, W).

        Raises:
            InvalidArgumentError: a wrong shape or range.
        """
        maps = self.maps(images)
        height, width = maps.frame.image_size
        if keypoints is None:
            with self._tracked():
                full = F.interpolate(maps.data.float(), (height, width), mode="bilinear")
                return F.normalize(full, dim=1, eps=torch.finfo(torch.float32).tiny)
        check_tensor(keypoints, "keypoints", "(B, N, 2)")
        with self._tracked():
            wide = widen(keypoints)
            size = wide.new_tensor([width, height])
            return maps.at(((wide + 1) * size - 1) / 2).to(images.device)

    def maps(self, img: Tensor, side: int | None = None) -> DescriptorMap:
        """Describe images as a `DescriptorMap`, from which `read` takes any number of frames.

        Args:
            img: as in `forward`.
            side: longest side in pixels to describe at; None takes the descriptor's own.
        """
        check_tensor(img, "img", "(B, C, H, W)")
        descriptor = self.descriptor if side is None else self.descriptor.with_long_side(side)
        with self._tracked():
            maps: DescriptorMap = descriptor(without_alpha(img))
            return maps

    def read(self, maps: DescriptorMap, lafs: Tensor) -> Tensor:
        """Read descriptors at the centres of frames; shapes and zeros as in `forward`."""
        check_tensor(lafs, "lafs", "(B, N, 2, 3)")
        if len(lafs) not in (1, len(maps)):
            raise InvalidArgumentError(
                f"lafs must be of {len(maps)} images, like img, or of 1, got {len(lafs)}"
            )
        with self._tracked():
            filled = is_filled(lafs) & lafs.isfinite().flatten(2).all(-1)
            centres = torch.where(filled[..., None], lafs[..., 2].float(), 0)
            return maps.at(centres) * filled[..., None].to(maps.data.device)

    def _tracked(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(self.gradients and torch.is_grad_enabled())


class DiTFFeature(Pretrained, KF.LocalFeature):
    """Detect local affine frames and describe them, as `kornia.feature.LocalFeature`.

    Args:
        descriptor: a dense descriptor, a `DiTFDescriptor`, or the name or folder of one.
        detector: a Kornia detector, an OpenCV detector, or the name of one of OpenCV's (`sift`,
            `orb`, `gftt` ...); None takes all token centres. A position that a detector reports
            several times, as SIFT does for each orientation, is kept once.
        max_keypoints: maximum number per image: the strongest of a detector's, or an even
            selection of the tokens.
        scaling_coef: factor on the scale of a detector's frames.
        multiscale: read large frames from a smaller copy of the image, so that an object that
            appears at another size has similar descriptors. It takes about twice the time. None
            does so with `detector="sift"`, where the descriptor resizes images.
        options: as for `DiTFDescriptor`.

    Raises:
        InvalidArgumentError: no such detector; or as `DiTFDescriptor`.

    Example:
        >>> feature = DiTFFeature.from_pretrained("nano", long_side=96)
        >>> lafs, responses, descriptors = feature(torch.rand(1, 3, 64, 96))
        >>> lafs.shape[:2] == descriptors.shape[:2]
        True
    """

    descriptor: DiTFDescriptor

    def __init__(
        self,
        descriptor: DiTFDescriptor | DenseDescriptor | str | Path = DEFAULT_BACKBONE,
        *,
        detector: Any = None,
        max_keypoints: int | None = None,
        scaling_coef: float = 1.0,
        multiscale: bool | None = None,
        **options: Any,
    ) -> None:
        if max_keypoints is not None:
            check_integer("max_keypoints", max_keypoints, minimum=1)
        scaled = measures_scale(detector)
        detector = as_detector(detector, max_keypoints)
        if not isinstance(descriptor, DiTFDescriptor):
            descriptor = DiTFDescriptor(descriptor, **options)
        super().__init__(detector, descriptor, scaling_coef)
        self.max_keypoints = max_keypoints
        self.multiscale = scaled if multiscale is None else multiscale

    def extra_repr(self) -> str:
        detector = "" if self.detector is not None else "detector=None, "
        return f"{detector}max_keypoints={self.max_keypoints}, multiscale={self.multiscale}"

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Find frames and describe them.

        Args:
            img: images (B, C, H, W) in [0, 1] of 1 to 4 channels. Detectors receive them in grey
                and one at a time, since some of Kornia's accept only that.
            mask: shape (B, 1, H, W) or (B, H, W), or with 1 for B; nothing is found where it is 0.

        Returns:
            frames (B, N, 2, 3), responses (B, N) and descriptors (B, N, D), float32. Images with
            fewer frames than others are padded with zeros. N may be 0.

        Raises:
            InvalidArgumentError: a wrong shape or range.
            ImageError: the image is too small or too thin.
        """
        maps = self.descriptor.maps(img)
        mask = None if mask is None else _as_mask(mask, img)
        if self.detector is None:
            lafs, responses = grid(maps, mask, self.max_keypoints)
        else:
            lafs, responses = detect(
                self.detector,
                without_alpha(img),
                mask,
                scaling_coef=self.scaling_coef,
                max_keypoints=self.max_keypoints,
            )

        def read(side: int | None) -> Tensor:
            same = side in (None, self.descriptor.descriptor.long_side)
            return self.descriptor.read(maps if same else self.descriptor.maps(img, side), lafs)

        side = self.descriptor.descriptor.long_side
        if self.multiscale and side is not None:
            diameters = 2 * KF.get_laf_scale(lafs)[..., 0, 0] / self.scaling_coef
            descriptors = read_at_scales(read, diameters * side / max(img.shape[2:]), side)
        else:
            descriptors = read(None)
        return lafs.to(img.device), responses.to(img.device), descriptors.to(img.device)


def without_alpha(img: Tensor) -> Tensor:
    """Drop the alpha channel of grey or colour images (B, C, H, W), if there is one."""
    return img[:, :-1] if img.shape[1] in (2, 4) else img


def _refuse_patches() -> None:
    # Kornia flattens whatever a patch descriptor returns, so only an error stops a wrong result;
    # a patch is an image like any other, so only the caller tells.
    frame = None if torch.compiler.is_compiling() else sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "get_laf_descriptors":
            raise InvalidArgumentError(
                "DiTFDescriptor describes whole images and cannot take the patches of Kornia's "
                "LAFDescriptor or get_laf_descriptors: call descriptor(img, lafs), or pass it to "
                "kornia.feature.LocalFeature directly"
            )
        frame = frame.f_back


def _as_mask(mask: Tensor, img: Tensor) -> Tensor:
    mask = mask[:, None] if mask.ndim == 3 else mask
    expected = (len(img), 1, *img.shape[2:])
    if mask.shape not in (expected, (1, *expected[1:])):
        raise InvalidArgumentError(f"mask must have the shape {expected}, got {tuple(mask.shape)}")
    return mask.expand(expected)
