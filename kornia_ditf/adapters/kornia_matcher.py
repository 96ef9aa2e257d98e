"""Match dense features of two images, with the interface of Kornia's `LocalFeatureMatcher`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kornia.feature as KF
import torch
from torch import Tensor, nn

from kornia_ditf.adapters.kornia import DiTFDescriptor, DiTFFeature, without_alpha
from kornia_ditf.adapters.matchers import NEIGHBOURHOOD, CosineMatcher, RatioMatcher
from kornia_ditf.adapters.wrapped import Pretrained
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.detection import allowed_at, is_filled
from kornia_ditf.registry.lookup import DEFAULT_BACKBONE
from kornia_ditf.search.variants import check_search
from kornia_ditf.search.verified import match_images

_RATIO = {"snn": False, "smnn": True, "fginn": False}  # name -> mutual
_NAMES = ("nn", "mnn", *_RATIO, "adalam")

_Matched = tuple[Tensor, Tensor, Tensor]
"""Frames of both images that match, shape (K, 2, 3) each, and their distances (K,)."""


class DiTFMatcher(Pretrained, KF.LocalFeatureMatcher):
    """Match two images, as `kornia.feature.LocalFeatureMatcher`.

    It also runs in `kornia.contrib.ImageStitcher` and in `kornia.tracking.HomographyTracker`, which
    describes the target once.

    Args:
        feature: a `DiTFFeature`, another module with the contract of `kornia.feature.LocalFeature`,
            or what `DiTFFeature` takes as its descriptor.
        matcher: a Kornia matcher module, including those that take frames (AdaLAM, FGINN), or the
            name of a mode: `nn`, `mnn`, `adalam` as in Kornia; `snn`, `smnn`, `fginn` for a
            `RatioMatcher`. None matches mutual nearest neighbours by cosine, and `confidence` is
            the cosine.
        min_score: drop matches of a lower cosine, in [-1, 1]; only without `matcher`.
        search: `turns`, `scales` or `both` also match images that are turned or differ in scale,
            see `match_images`; keypoints of image 1 then lie between tokens, and masks are applied
            to the matches. Only without `matcher` and `detector`. `none` matches tokens as they
            are. None searches `both` where tokens of two whole images are matched: not with
            masks, features that are given, or gradients.
        options: as for `DiTFFeature`: `detector`, `max_keypoints`, `block` ...

    Raises:
        InvalidArgumentError: no such matcher, a module that is not a local feature, or options that
            do not fit; or as `DiTFFeature`.

    Example:
        >>> matcher = DiTFMatcher.from_pretrained("nano", long_side=96)
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
        search: str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(feature, nn.Module) or isinstance(
            feature, DiTFDescriptor | DenseDescriptor
        ):
            feature = DiTFFeature(feature, **options)
        elif options:
            raise InvalidArgumentError(
                f"{', '.join(options)} cannot be applied to an existing feature"
            )
        else:
            _check_feature(feature)
        super().__init__(feature, _as_matcher(matcher, min_score))
        self.search, self.min_score = search if search is None else check_search(search), min_score
        tokens = isinstance(feature, DiTFFeature) and feature.detector is None
        self.searches = matcher is None and tokens and search != "none"
        if search not in (None, "none") and not self.searches:
            raise InvalidArgumentError(
                f"search={search!r} matches tokens: leave out matcher and detector"
            )

    def extra_repr(self) -> str:
        return f"search={self.search!r}"

    def forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Match pairs of images.

        Args:
            data: `image0` and `image1`, (B, C, H, W) in [0, 1] each; `mask0` and `mask1`, (B, H, W)
                or (B, 1, H, W), nothing is matched where they are 0; `lafs0` with `descriptors0`
                instead of describing `image0`; the same for `image1`.

        Returns:
            `keypoints0` and `keypoints1` (K, 2), `lafs0` and `lafs1` (1, K, 2, 3), `confidence`
            (K,), which is one minus the matcher's distance, and `batch_indexes` (K,), int64.

        Raises:
            InvalidArgumentError: a wrong shape or range.
            ImageError: an image is too small or too thin.
        """
        given = {"lafs0", "descriptors0", "lafs1", "descriptors1"} & set(data)
        if self.searches and not given and (self.search or self._may_search(data)):
            pairs = self._search(data)
        else:
            pairs = self._match_features(data)
        matched0, matched1, distances = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        counts = torch.tensor([len(pair[2]) for pair in pairs], device=matched0.device)
        return {
            "keypoints0": matched0[..., 2],
            "keypoints1": matched1[..., 2],
            "lafs0": matched0[None],
            "lafs1": matched1[None],
            "confidence": 1 - distances,
            "batch_indexes": torch.repeat_interleave(counts),
        }

    def _may_search(self, data: Mapping[str, Tensor]) -> bool:
        """Whether plain matching would see the same: no masks, no gradients, no limit of tokens."""
        feature: Any = self.local_feature
        whole = feature.max_keypoints is None and not {"mask0", "mask1"} & set(data)
        return whole and not (torch.is_grad_enabled() and feature.descriptor.gradients)

    def _search(self, data: Mapping[str, Tensor]) -> list[_Matched]:
        images = [without_alpha(data[f"image{side}"]) for side in "01"]
        _check_counts(*images)
        feature: Any = self.local_feature
        pairs = []
        for index, (image0, image1) in enumerate(zip(*images, strict=True)):
            found = match_images(
                image0,
                image1,
                feature.descriptor.descriptor,
                search=self.search or "both",
                min_score=self.min_score,
            )
            matches, sides = found.matches, []
            kept = torch.ones_like(matches.scores, dtype=torch.bool)
            for side, points, maps in zip(
                "01", (matches.points_a, matches.points_b), found.maps, strict=True
            ):
                mask = data.get(f"mask{side}")
                if mask is not None:
                    kept &= allowed_at(points, mask[min(index, len(mask) - 1)].squeeze())
                token = max(maps.frame.image_size) / max(maps.grid)
                scale = points.new_full((1, len(points), 1, 1), token / 2)
                sides.append(KF.laf_from_center_scale_ori(points[None], scale)[0])
            pairs.append((sides[0][kept], sides[1][kept], 1 - matches.scores[kept]))
        return pairs

    def _match_features(self, data: Mapping[str, Tensor]) -> list[_Matched]:
        lafs0, descriptors0, radius0 = self._features(data, "0")
        lafs1, descriptors1, radius1 = self._features(data, "1")
        _check_counts(lafs0, lafs1)
        sides = zip(lafs0, descriptors0, lafs1, descriptors1, strict=True)
        return [self._match(*each, (radius0, radius1)) for each in sides]

    def _features(self, data: Mapping[str, Tensor], side: str) -> tuple[Tensor, Tensor, float]:
        image = data.get(f"image{side}")
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
                f"lafs{side} and descriptors{side} must describe the same features, got "
                f"{tuple(lafs.shape)} and {tuple(descriptors.shape)}"
            )
        radius = 10.0 if image is None else NEIGHBOURHOOD * max(image.shape[2:])
        return lafs.float(), descriptors, radius

    def _match(
        self,
        lafs0: Tensor,
        descriptors0: Tensor,
        lafs1: Tensor,
        descriptors1: Tensor,
        radii: tuple[float, float],
    ) -> _Matched:
        filled0, filled1 = is_filled(lafs0), is_filled(lafs1)
        lafs0, descriptors0 = lafs0[filled0], descriptors0[filled0]
        lafs1, descriptors1 = lafs1[filled1], descriptors1[filled1]
        if not len(lafs0) or not len(lafs1):
            return lafs0[:0], lafs1[:0], lafs0.new_zeros(0)
        more: tuple[Any, ...] = ()
        if isinstance(self.matcher, KF.GeometryAwareDescriptorMatcher):
            more = (lafs0[None], lafs1[None])
        elif isinstance(self.matcher, RatioMatcher):
            more = (lafs0[None], lafs1[None], radii)
        distances, indices = self.matcher(descriptors0, descriptors1, *more)
        return lafs0[indices[:, 0]], lafs1[indices[:, 1]], distances.flatten().float()


def create_matcher(name: str | Path = DEFAULT_BACKBONE, **options: Any) -> DiTFMatcher:
    """Create a `DiTFMatcher` from the name of a dense descriptor.

    Args:
        name: as for `create_descriptor`.
        options: of `DiTFMatcher` (`matcher`, `min_score`, `search`), of `DiTFFeature` (`detector`,
            `max_keypoints` ...) and of `create_descriptor` (`source`, `block`, `timestep`,
            `dtype`, `device` ...).

    Raises:
        UnknownBackboneError: there is no such descriptor.
        InvalidArgumentError: an option is unknown or out of range.
        CheckpointError: the weights are incomplete or damaged.
        HubError: the weights cannot be downloaded.

    Example:
        >>> matcher = create_matcher("nano", detector="sift", matcher="smnn", long_side=96)
        >>> image = torch.rand(1, 3, 64, 96)
        >>> sorted(matcher({"image0": image, "image1": image}))
        ['batch_indexes', 'confidence', 'keypoints0', 'keypoints1', 'lafs0', 'lafs1']
    """
    return DiTFMatcher(name, **options)


def _check_counts(first: Tensor, second: Tensor) -> None:
    if len(first) != len(second) or not len(first):
        raise InvalidArgumentError(
            f"image0 and image1 must have equal batch sizes of at least 1, got {len(first)} and "
            f"{len(second)}"
        )


def _as_matcher(matcher: nn.Module | str | None, min_score: float | None) -> nn.Module:
    if matcher is None:
        return CosineMatcher(min_score)
    if min_score is not None:
        raise InvalidArgumentError(
            "min_score cannot be combined with matcher: it belongs to the default matcher"
        )
    if isinstance(matcher, nn.Module):
        return matcher
    if matcher in _RATIO:
        return RatioMatcher(mutual=_RATIO[matcher])
    if matcher == "adalam":
        return KF.GeometryAwareDescriptorMatcher(matcher)
    if matcher in _NAMES:
        return KF.DescriptorMatcher(matcher)
    raise InvalidArgumentError(
        f"matcher must be a module or one of {', '.join(_NAMES)}, got {matcher!r}"
    )


def _check_feature(feature: nn.Module) -> None:
    try:
        inspect.signature(feature.forward).bind("image", "mask")
    except TypeError as error:
        raise InvalidArgumentError(
            "feature must take an image and a mask and return frames, responses and descriptors, "
            f"as kornia.feature.LocalFeature, got {type(feature).__name__}: wrap a dense "
            "descriptor in DiTFFeature, or subclass kornia_ditf.DenseDescriptor"
        ) from error
