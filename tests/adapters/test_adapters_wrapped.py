from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kornia_ditf import create_descriptor, create_matcher
from kornia_ditf.adapters.kornia import DiTFDescriptor, DiTFFeature
from kornia_ditf.adapters.kornia_matcher import DiTFMatcher
from kornia_ditf.adapters.opencv import OpenCVFeature
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError, UnknownBackboneError

CLASSES = (DiTFDescriptor, DiTFFeature, DiTFMatcher, OpenCVFeature)


@pytest.mark.parametrize("cls", CLASSES)
def test_from_pretrained_takes_names_and_nothing_else(cls: Any, nano: DiTF) -> None:
    with pytest.raises(UnknownBackboneError, match="no-such"):
        cls.from_pretrained("no-such")
    with pytest.raises(InvalidArgumentError, match=rf"pass it to {cls.__name__}\(\.\.\.\)"):
        cls.from_pretrained(nano)


def test_from_pretrained_takes_the_options_of_the_class_and_of_the_descriptor(
    images: list[Tensor], tiny_checkpoint: Any
) -> None:
    folder: Path = tiny_checkpoint("nano")
    options: dict[str, Any] = {"block": 2, "long_side": 64, "massive_channels": ()}
    matcher = DiTFMatcher.from_pretrained(folder, min_score=0.1, **options)
    expected = create_matcher(folder, min_score=0.1, **options)
    data = {"image0": images[0], "image1": images[0].flip(-1)}
    for key, value in matcher(data).items():
        assert torch.equal(value, expected(data)[key])
    feature = DiTFFeature.from_pretrained(folder, detector="sift", max_keypoints=7, **options)
    assert feature(images[0])[0].shape[1] <= 7
    with pytest.raises(InvalidArgumentError, match="it is called dtype here"):
        DiTFDescriptor.from_pretrained(folder, torch_dtype=torch.float16)


def test_modules_are_represented_by_their_settings_and_not_by_every_layer(nano: DiTF) -> None:
    shown = repr(DiTFMatcher(nano, min_score=0.25))
    for part in ("CosineMatcher(min_score=0.25)", "DiTF(NanoBackbone, width=", "block=", "search="):
        assert part in shown
    assert len(shown.splitlines()) < 15
    assert "'sift'" in repr(DiTFFeature(nano, detector="sift"))
    assert "'sift'" in repr(OpenCVFeature(nano, detector="sift"))
    fused = repr(create_descriptor("nano+nano"))
    assert fused.startswith("FusedDescriptor(\n  width=320") and "2 x DiTF(" in fused
