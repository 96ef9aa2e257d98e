"""Scoring of pairs, against the published scripts written out plainly."""

from __future__ import annotations

import independent
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf import create_descriptor, evaluate_pair, find_protocol, load_dataset, prepare_image
from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.types import DescriptorMap, Frame


def dift(data_a: Tensor, data_b: Tensor, pair: Pair) -> list[float]:
    """DIFT's and DiTF's distances over the threshold's base, with everything upsampled."""
    assert pair.box_b is not None
    left, top, right, bottom = pair.box_b
    base = max(bottom - top, right - left)
    up_a, up_b = (
        independent.upsample(data_a, pair.size_a),
        independent.upsample(data_b, pair.size_b),
    )
    pixels = F.normalize(up_b[0].flatten(1).T)
    scores = []
    for (x, y), (u, v) in zip(pair.points_a.tolist(), pair.points_b.tolist(), strict=True):
        query = F.normalize(up_a[0, :, int(y), int(x)][None])
        best = int((pixels @ query.T).argmax())
        row, column = divmod(best, pair.size_b[1])
        scores.append((((column - u) ** 2 + (row - v) ** 2) ** 0.5) / base)
    return scores


def test_own_pairs_are_scored_from_files_to_hits() -> None:
    protocol = find_protocol("ditf-spair")
    descriptor = create_descriptor("nano", long_side=None)
    for pair in load_dataset("folder", "examples/data"):
        maps = [descriptor(prepare_image(path, protocol)) for path in (pair.image_a, pair.image_b)]
        result = evaluate_pair(*maps, pair, protocol)
        assert result.predicted.shape == (len(pair.points_a), 2)
        # Real photographs: most points are found within a tenth of the box.
        assert result.hits[0].float().mean() > 0.5
        assert bool((result.hits[0] | ~result.hits[1]).all())


@pytest.mark.parametrize("name", ["dift-spair", "ditf-spair"])
@pytest.mark.parametrize("seed", range(4))
def test_pixels_are_found_and_scored_as_dift_and_ditf_do(name: str, seed: int) -> None:
    pair = load_dataset("folder", "examples/data")[0]
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(1, 16, 10, 12, generator=generator)
    a, b = (base + 0.3 * torch.randn(base.shape, generator=generator) for _ in range(2))
    protocol = find_protocol(name)
    maps = [DescriptorMap(data, Frame((768, 768), (768, 768))) for data in (a, b)]
    result = evaluate_pair(*maps, pair, protocol)
    expected = dift(a, b, pair)
    for alpha, hits in zip(protocol.alphas, result.hits, strict=True):
        assert hits.tolist() == [score <= alpha for score in expected]
