"""The matcher `ditf` of vismatch.

vismatch has a fixed list of matchers, so `get_matcher` is replaced by one that adds `ditf`.
"""

from __future__ import annotations

from functools import wraps
from importlib import import_module
from typing import Any

from torch import Tensor

from kornia_ditf.adapters.hosts import NAME


def switch_on(root: str) -> None:
    """Add `ditf` to `get_matcher`, alone and in an ensemble."""
    host: Any = import_module(root)
    former = host.get_matcher
    if getattr(former, "knows_ditf", False):
        return

    @wraps(former)
    def get_matcher(matcher_name: Any = "sift-lightglue", *args: Any, **kwargs: Any) -> Any:
        if matcher_name == NAME:
            return matcher_class(host.BaseMatcher)(*args, **kwargs)
        return former(matcher_name, *args, **kwargs)

    get_matcher.knows_ditf = True  # type: ignore[attr-defined]
    host.get_matcher = get_matcher
    host.available_models.append(NAME)


def matcher_class(base: Any) -> Any:
    """Create a subclass of vismatch's BaseMatcher."""
    from kornia_ditf.adapters.kornia_matcher import DiTFMatcher

    class DiTFImageMatcher(base):  # type: ignore[misc]
        """Mutual nearest tokens, at most `max_num_keypoints`, best first.

        Without a search, as with `search="none"`, all keypoints and descriptors are returned too.
        """

        def __init__(
            self,
            device: str = "cpu",
            max_num_keypoints: int | None = 2048,
            backbone: str = "nano",
            **options: Any,
        ) -> None:
            ransac = {k: options.pop(k) for k in list(options) if k.startswith("ransac_")}
            super().__init__(device, **ransac)
            self.max_num_keypoints = max_num_keypoints
            self.matcher = DiTFMatcher(backbone, device=device, **options)

        def _forward(self, img0: Tensor, img1: Tensor) -> tuple[Tensor | None, ...]:
            # vismatch allows resized images to exceed [0, 1] slightly
            images = [image[None].clamp(0, 1) for image in (img0, img1)]
            sides = [] if self.matcher.searches else map(self.matcher.extract_features, images)
            data = {f"image{side}": image for side, image in enumerate(images)}
            described: list[Tensor | None] = [None] * 4
            for side, features in enumerate(sides):
                data |= {f"{name}{side}": features[name] for name in ("lafs", "descriptors")}
                described[side] = features["lafs"][0, :, :, 2]
                described[side + 2] = features["descriptors"][0]
            matches = self.matcher(data)
            confidence = matches["confidence"]
            best = confidence.argsort(descending=True, stable=True)[: self.max_num_keypoints]
            return (
                matches["keypoints0"][best],
                matches["keypoints1"][best],
                *described,
                confidence[best],
            )

    return DiTFImageMatcher
