"""Inspection, against the same numbers computed the long way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from kornia_ditf import create_ditf
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.viz.inspection import COMPARED, inspect_channels


@pytest.fixture
def ditf(tiny_checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> DiTF:
    descriptor = create_ditf(tiny_checkpoint("nano"), block=3, long_side=None, timestep=100)
    monkeypatch.setattr(descriptor.backbone, "identity", None)  # nothing kept
    return descriptor


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_statistics_are_those_of_calibration(ditf: DiTF, image: torch.Tensor) -> None:
    images = [image, image[..., :32]]
    found = inspect_channels(ditf, images, blocks=[1])
    assert list(found.statistics) == [1, 3]
    for block, statistics in found.statistics.items():
        expected = ditf.calibrate(images, block=block, keep=False)
        torch.testing.assert_close(statistics.magnitude, expected.magnitude)
        torch.testing.assert_close(statistics.token_variation, expected.token_variation)


def test_contrast_and_similarity_are_those_of_all_pairs_of_tokens(
    ditf: DiTF, image: torch.Tensor
) -> None:
    point = (4 * 5 + 1.5, 4 * 2 + 1.5)  # the centre of row 2, column 5
    found = inspect_channels(ditf, [image], blocks=[3], point=point)
    for treatment in COMPARED:
        config = {"treatment": treatment, "massive_channels": found.discarded}
        tokens = _tokens(ditf, image, config)
        cosines = tokens @ tokens.T
        count = len(tokens)
        pairs = cosines[~torch.eye(count, dtype=torch.bool)]
        assert found.contrast[treatment] == pytest.approx(1 - float(pairs.mean()), abs=1e-5)
        expected = cosines[2 * 12 + 5].reshape(8, 12)
        torch.testing.assert_close(found.similarity[treatment], expected, atol=1e-5, rtol=0)


def _tokens(ditf: DiTF, image: torch.Tensor, changes: dict[str, object]) -> torch.Tensor:
    from dataclasses import replace

    described = DiTF(ditf.backbone, replace(ditf.config, **changes))(image)  # type: ignore[arg-type]
    return F.normalize(described.tokens[0], dim=-1)


def test_no_images_and_a_point_outside_are_refused(ditf: DiTF, image: torch.Tensor) -> None:
    with pytest.raises(InvalidArgumentError, match="at least one image"):
        inspect_channels(ditf, [])
    with pytest.raises(InvalidArgumentError, match=r"x in \[0, 47\]"):
        inspect_channels(ditf, [image], point=(48, 0))
