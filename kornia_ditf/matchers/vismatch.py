"""Every matcher of the package vismatch, as `vismatch:NAME`."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import MissingExtraError
from kornia_ditf.matchers.base import ImageMatcher, MatcherSpec
from kornia_ditf.types import Matches

PREFIX = "vismatch:"


class VismatchMatcher(ImageMatcher):
    """A matcher of vismatch.

    Args:
        name: one of `vismatch.available_models`.
        device: where it runs.
        options: of `vismatch.get_matcher`, such as `max_num_keypoints`.

    Raises:
        MissingExtraError: vismatch is not installed.
    """

    def __init__(self, name: str, *, device: str = "cpu", **options: Any) -> None:
        reason = _lacks()
        if reason:
            raise MissingExtraError(reason)
        import vismatch

        self.model = vismatch.get_matcher(name, device=device, **options)
        self.model.skip_ransac = True

    def features(self, image: Tensor, name: str) -> Tensor:
        return image[0]

    def compare(self, features_a: Any, features_b: Any) -> Matches:
        found = self.model(features_a, features_b)
        a, b = (torch.as_tensor(found[f"matched_kpts{side}"]).reshape(-1, 2) for side in "01")
        given = found.get("matched_confidences")
        scores = torch.ones(len(a)) if given is None else torch.as_tensor(given).reshape(-1)
        return Matches(a, b, scores)


def vismatch_spec(name: str) -> MatcherSpec:
    """Return the spec of a matcher of vismatch, whether it is installed or not."""
    return MatcherSpec(
        name=PREFIX + name,
        load=partial(VismatchMatcher, name),
        source="https://pypi.org/project/vismatch",
        license="see its publisher",
        lacks=_lacks,
    )


def list_vismatch() -> list[MatcherSpec]:
    """List the matchers of the installed vismatch; none where it is not installed."""
    if find_spec("vismatch") is None:
        return []
    import vismatch

    return [vismatch_spec(name) for name in vismatch.available_models]


def _lacks() -> str:
    return "" if find_spec("vismatch") else "it comes with vismatch: pip install vismatch"
