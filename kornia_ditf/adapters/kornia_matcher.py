"""Dense features of two images in; matches out, as Kornia's `LocalFeatureMatcher` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kornia.feature as KF
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_ditf.adapters.keypoints import is_filled
from kornia_ditf.adapters.kornia import DiTFDescriptor, DiTFFeature
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.nearest import mutual_nearest
from kornia_ditf.registry.lookup import DEFAULT_BACKBONE

_PLAIN = ("nn", "mnn", "snn", "smnn")
_AWARE = ("fginn", "adalam")


class CosineMatcher(nn.Module):
    """Mutually nearest descriptors by cosine, as a Kornia descriptor matcher.

    Args:
        min_score: leave out matches of a lower cosine, in [-1, 1].

    Example:
        >>> distances, indices = CosineMatcher()(torch.eye(3), torch.eye(3)[[2, 0]])
        >>> indices
        tensor([[0, 1],
                [2, 0]])
    """

    def __init__(self, min_score: float | None = None) -> None:
        super().__init__()
        if min_score is not None and not -1 <= min_score <= 1:
            raise InvalidArgumentError(f"min_score must lie in [-1, 1], got {min_score}")
        self.min_score = min_score

    def forward(self, desc1: Tensor, desc2: Tensor) -> tuple[Tensor, Tensor]:
        """Match descriptors (N, D) and (M, D); gives 1 - cosine, (K, 1), and pairs of rows (K, 2).

        Zero vectors match nothing. The distances carry gradients where the descriptors do.
        """
        indices, scores = mutual_nearest(desc1.detach(), desc2.detach())
        if torch.is_grad_enabled() and (desc1.requires_grad or desc2.requires_grad):
            a, b = indices.unbind(1)
            scores = F.cosine_similarity(desc1[a].float(), desc2[b].float())
        if self.min_score is not None:
            indices, scores = indices[scores >= self.min_score], scores[scores >= self.min_score]
        return 1 - scores[:, None], indices


class DiTFMatcher(KF.LocalFeatureMatcher):
    """Matches of two images: a `kornia.feature.LocalFeatureMatcher`.

    It therefore also runs in `kornia.contrib.ImageStitcher` and, describing the target once, in
    `kornia.tracking.HomographyTracker`.

    Args:
        feature: a `DiTFFeature` or any other module with that contract, or what one is made from.
        matcher: a Kornia matcher, one that wants frames too (AdaLAM, FGINN) included; or the name
            of one of its modes (`nn`, `mnn`, `snn`, `smnn`, `fginn`, `adalam`). None takes mutually
            nearest tokens by cosine, so that `confidence` is the cosine.
        min_score: leave out matches of a lower cosine, in [-1, 1]; without `matcher` only.
        options: as for `DiTFFeature`: `detector`, `max_keypoints`, `block` ...

    Raises:
        InvalidArgumentError: no such matcher, or options that do not fit; or as `DiTFFeature`.

    Example:
        >>> matcher = DiTFMatcher("nano", long_side=96)
        >>> image = torch.rand(1, 1, 64, 96)
        >>> matches = matcher({"image0": image, "image1": image})
        >>> bool((matches["keypoints0"] == matches["keypoints1"]).all())
        True
    """

    def __init__(
        self,
        feature: nn.Module | str | Path = DEFAULT_BACKBONE,
        matcher: nn.Module | str | None = None,
        *,
        min_score: float | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(feature, nn.Module) or isinstance(
            feature, DiTFDescriptor | DenseDescriptor
        ):
            feature = DiTFFeature(feature, **options)
        elif options:
            raise InvalidArgumentError(
                f"{', '.join(options)} cannot change a feature that is made already"
            )
        super().__init__(feature, _as_matcher(matcher, min_score))

    def forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Match pairs of images.

        Args:
            data: `image0` and `image1`, (B, C, H, W) in [0, 1] each; `mask0` and `mask1`,
                (B, H, W) or (B, 1, H, W), nothing is matched where they are 0; `lafs0` with
                `descriptors0` instead of describing `image0`, and likewise for `image1`.

        Returns:
            `keypoints0` and `keypoints1` (K, 2), `lafs0` and `lafs1` (1, K, 2, 3), `confidence`
            (K,), which is one minus the matcher's distance, and `batch_indexes` (K,), int64.

        Raises:
            InvalidArgumentError: a wrong shape or range.
            ImageError: an image is too small or too thin.
        """
        lafs0, descriptors0 = self._features(data, "0")
        lafs1, descriptors1 = self._features(data, "1")
        if len(lafs0) != len(lafs1):
            raise InvalidArgumentError(
                f"image0 and image1 must be equally many, got {len(lafs0)} and {len(lafs1)}"
            )
        pairs = [
            self._match(*sides)
            for sides in zip(lafs0, descriptors0, lafs1, descriptors1, strict=True)
        ]
        matched0, matched1, distances = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        counts = torch.tensor([len(pair[2]) for pair in pairs], device=matched0.device)
        return {
            "keypoints0": matched0[..., 2],
            "keypoints1": matched1[..., 2],
            "lafs0": matched0[None],
            "lafs1": matched1[None],
            "confidence": 1 - distances,
            "batch_indexes": torch.arange(len(pairs), device=counts.device).repeat_interleave(
                counts
            ),
        }

    def _features(self, data: Mapping[str, Tensor], side: str) -> tuple[Tensor, Tensor]:
        if f"lafs{side}" in data and f"descriptors{side}" in data:
            lafs, descriptors = data[f"lafs{side}"], data[f"descriptors{side}"]
        else:
            mask = data.get(f"mask{side}")
            if mask is not None and mask.ndim == 3:
                mask = mask[:, None]  # as a KF.LocalFeature wants it
            found = self.extract_features(data[f"image{side}"], mask)
            lafs, descriptors = found["lafs"], found["descriptors"]
        if lafs.shape[:2] != descriptors.shape[:2]:
            raise InvalidArgumentError(
                f"lafs{side} and descriptors{side} must be of the same features, "
                f"got {tuple(lafs.shape)} and {tuple(descriptors.shape)}"
            )
        return lafs.float(), descriptors

    def _match(
        self, lafs0: Tensor, descriptors0: Tensor, lafs1: Tensor, descriptors1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        filled0, filled1 = is_filled(lafs0), is_filled(lafs1)
        lafs0, descriptors0 = lafs0[filled0], descriptors0[filled0]
        lafs1, descriptors1 = lafs1[filled1], descriptors1[filled1]
        if not len(lafs0) or not len(lafs1):
            return lafs0[:0], lafs1[:0], lafs0.new_zeros(0)
        frames = (
            (lafs0[None], lafs1[None])
            if isinstance(self.matcher, KF.GeometryAwareDescriptorMatcher)
            else ()
        )
        distances, indices = self.matcher(descriptors0, descriptors1, *frames)
        return lafs0[indices[:, 0]], lafs1[indices[:, 1]], distances.flatten().float()


def create_matcher(
    name: str | Path = DEFAULT_BACKBONE,
    *,
    source: str | Path | None = None,
    matcher: nn.Module | str | None = None,
    detector: Any = None,
    min_score: float | None = None,
    **options: Any,
) -> DiTFMatcher:
    """Load a dense descriptor with its preset and match images by it, as a Kornia module.

    Args:
        name: what `create_descriptor` takes.
        source: where a named one's weights are, if not in its own repository.
        matcher: see `DiTFMatcher`.
        detector: see `DiTFFeature`.
        min_score: leave out matches of a lower cosine, in [-1, 1].
        options: of `create_descriptor` (`block`, `timestep`, `dtype`, `device` ...), and
            `max_keypoints`.

    Raises:
        UnknownBackboneError: there is no such descriptor.
        InvalidArgumentError: an option is unknown or out of range.
        CheckpointError: the weights are incomplete or damaged.
        HubError: the weights cannot be had.

    Example:
        >>> matcher = create_matcher("nano", detector="sift", matcher="smnn", long_side=96)
        >>> image = torch.rand(1, 3, 64, 96)
        >>> sorted(matcher({"image0": image, "image1": image}))
        ['batch_indexes', 'confidence', 'keypoints0', 'keypoints1', 'lafs0', 'lafs1']
    """
    if source is not None:
        options["source"] = source
    return DiTFMatcher(name, matcher, detector=detector, min_score=min_score, **options)


def _as_matcher(matcher: nn.Module | str | None, min_score: float | None) -> nn.Module:
    if matcher is None:
        return CosineMatcher(min_score)
    if min_score is not None:
        raise InvalidArgumentError("min_score goes without a matcher of your own")
    if isinstance(matcher, nn.Module):
        return matcher
    if matcher in _PLAIN:
        return KF.DescriptorMatcher(matcher)
    if matcher in _AWARE:
        return KF.GeometryAwareDescriptorMatcher(matcher)
    raise InvalidArgumentError(
        f"matcher must be a module or one of {', '.join(_PLAIN + _AWARE)}, got {matcher!r}"
    )
